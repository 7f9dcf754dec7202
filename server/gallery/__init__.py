"""The truth (store), the index derived from it, and the search over both. Plain Python, no HTTP."""
