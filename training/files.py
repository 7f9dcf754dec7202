"""Atomic writing of files: complete or absent, even after a crash or power loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import torch

__all__ = ["save_state", "write_atomically"]


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write ``content``, or what the function writes, so that ``path`` is the old file or the complete new one.

    Concurrent writers of a path are safe: the last one wins. Missing folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}.unfinished")
    try:
        with unfinished.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values atomically for :func:`torch.load`."""
    write_atomically(path, lambda file: torch.save(dict(state), file))
