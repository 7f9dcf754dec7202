"""Tests of the galleries: truth, index, search and the façade."""
