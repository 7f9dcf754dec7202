"""Seeded corpus of malformed and expensive inputs, sent to a whole server."""
