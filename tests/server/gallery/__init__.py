"""Tests of ``server.gallery``."""
