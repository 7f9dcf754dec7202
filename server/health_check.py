"""The container's health check: ``python -m server.health_check`` exits with 0 if /healthz answers 200."""

from __future__ import annotations

import http.client
import os
import sys

from server.environment import setting_values

__all__ = ["is_healthy"]

_TIMEOUT_S = 2
_UNSPECIFIED = {"0.0.0.0": ["127.0.0.1"], "::": ["127.0.0.1", "::1"]}  # noqa: S104


def is_healthy(settings: dict[str, str]) -> bool:
    """Return whether the server answers at the address that ``settings`` (by upper-case name) configure."""
    host = settings.get("HOST", "127.0.0.1").strip("[]")
    port = int(settings.get("PORT", "8000"))
    return any(_answers(address, port) for address in _UNSPECIFIED.get(host, [host]))


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not is_healthy(setting_values(os.environ)))
