"""Bytes → crop → batch → vector. Plain Python: a script can use it without HTTP."""
