"""Tests of background jobs and import sources."""
