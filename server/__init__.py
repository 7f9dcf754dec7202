"""The HTTP gallery search. Imports neither torch nor anything of ``training``."""

from models.cores import limit_native_threads

limit_native_threads()
