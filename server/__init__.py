"""The HTTP gallery search. Imports neither torch nor anything of ``training``."""

from server.hardware.cpu import limit_native_threads

limit_native_threads()
