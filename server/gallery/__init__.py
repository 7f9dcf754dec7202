"""Galleries: their catalog, writes, loading, queries, erasure and maintenance. No HTTP."""
