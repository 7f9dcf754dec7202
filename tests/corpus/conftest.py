"""Fixtures that the server's tests define."""

from tests.server.conftest import model_dir

__all__ = ["model_dir"]
