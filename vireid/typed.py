"""The command as it was typed, kept with what it made."""

from __future__ import annotations

import shlex
import sys

__all__ = ["typed_command"]


def typed_command() -> str:
    """``vireid`` with the words given to it, quoted for a shell."""
    return shlex.join(["vireid", *sys.argv[1:]])
