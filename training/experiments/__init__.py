"""Ablations, studies and the report over their results."""
