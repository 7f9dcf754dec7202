"""vireid: find the same person across visible and infrared cameras."""

__all__ = ["DEFAULT_URL"]

DEFAULT_URL = "http://127.0.0.1:8000"
"""Default address of the server, used by the client and the command."""
