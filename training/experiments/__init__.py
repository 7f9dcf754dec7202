"""Ablations, studies and the report of their results."""
