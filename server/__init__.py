"""The HTTP gallery search. Imports neither torch nor anything of ``training``."""
