"""The program of a decoding process: decodes one image file at a time, within a limit of memory.

Messages over the socket at file descriptor 0, all in network byte order:

- request: size of the file, largest number of pixels, two percentiles (``REQUEST``), then the file;
- response: status, height, width (``RESPONSE``), then the pixels, or a reason of ``height`` bytes.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import sys
import warnings
from pathlib import Path

from server.domain.errors import ImageRejected, ImageTooLarge, ImageTypeUnsupported
from server.embedding.decode import decode_image

__all__ = ["ERRORS", "REQUEST", "RESPONSE", "receive_exactly"]

REQUEST = struct.Struct("!QQdd")
RESPONSE = struct.Struct("!BII")
ERRORS: tuple[type[ImageRejected], ...] = (ImageRejected, ImageTooLarge, ImageTypeUnsupported)
"""Errors by status, from 1; status 0 is success."""

_EXTRA_MEMORY = 1 << 30  # beyond what is mapped after the imports


def receive_exactly(connection: socket.socket, target: bytearray | memoryview) -> bool:
    """Fill ``target``; return False if the connection was closed before its first byte.

    Raises:
        ConnectionError: the connection was closed later.
    """
    view, received = memoryview(target), 0
    while received < len(view):
        count = connection.recv_into(view[received:])
        if not count:
            if received:
                raise ConnectionError("the connection was closed within a message")
            return False
        received += count
    return True


def _serve(connection: socket.socket) -> None:
    header = bytearray(REQUEST.size)
    while receive_exactly(connection, header):
        size, max_pixels, low, high = REQUEST.unpack(header)
        data = bytearray(size)
        receive_exactly(connection, data)
        try:
            pixels = decode_image(bytes(data), max_pixels=max_pixels, percentiles=(low, high))
        except ImageRejected as error:
            reason = error.reason.encode()
            connection.sendall(RESPONSE.pack(1 + ERRORS.index(type(error)), len(reason), 0) + reason)
        else:
            height, width, _ = pixels.shape
            connection.sendall(RESPONSE.pack(0, height, width))
            connection.sendall(pixels.data.cast("B"))


def _limit_memory() -> None:
    with contextlib.suppress(OSError, ValueError):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _EXTRA_MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # about metadata, which do not matter
    os.nice(int(sys.argv[1]))
    _limit_memory()
    with contextlib.suppress(ConnectionError), socket.socket(fileno=0) as parent:
        parent.sendall(b"\0")  # ready
        _serve(parent)
