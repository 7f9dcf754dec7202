"""Requests per minute of a key or an address."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict

__all__ = ["Rates", "network_of"]

_REMEMBERED = 10_000
_IPV6_PREFIX = 64


class Rates:
    """Token buckets by name: a minute's requests may come at once. Names that were idle for long are forgotten."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def wait_s(self, name: str, per_minute: int) -> int:
        """Return the whole seconds until a request is allowed; 0: it is allowed now."""
        missing = 1 - self._tokens(name, per_minute)
        return math.ceil(missing * 60 / per_minute) if missing > 0 else 0

    def count(self, name: str, per_minute: int) -> None:
        """Count a request."""
        self._buckets[name] = self._tokens(name, per_minute) - 1, time.monotonic()
        self._buckets.move_to_end(name)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)

    def _tokens(self, name: str, per_minute: int) -> float:
        now = time.monotonic()
        tokens, then = self._buckets.get(name, (float(per_minute), now))
        return min(float(per_minute), tokens + (now - then) * per_minute / 60)


def network_of(host: str) -> str:
    """Return what one client has of an address: an IPv4 address, or the first 64 bits of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
