"""Reading of ``VIREID_*`` environment variables as orchestrators, ``.env`` files and people set them.

It imports only the standard library, so that the container's health check starts quickly.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

__all__ = ["PREFIX", "setting_values", "unknown_names"]

PREFIX = "VIREID_"

_NEAR = 0.75
_SERVICE_LINK_NAME = re.compile(
    r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|PORT|NAME|ENV_.+)"
)
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


def setting_values(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the variables with the prefix, by upper-case name without the prefix.

    Surrounding blanks and quotes are removed, because ``docker run --env-file`` keeps them. Empty values count as
    unset. A Kubernetes Service or Docker link called ``vireid`` sets ``VIREID_PORT`` to an address; such values are
    omitted.
    """
    found = {}
    for name, raw in environment.items():
        value = raw.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1].strip()
        if name.upper().startswith(PREFIX) and value and not _SERVICE_LINK_VALUE.match(value):
            found[name.upper().removeprefix(PREFIX)] = value
    return found


def unknown_names(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Return the names of variables with the prefix that are not settings; ``known`` has no prefix.

    Raises:
        ValueError: a name resembles a setting and is probably misspelt.
    """
    settings = {name.upper() for name in known}
    unknown = sorted(setting_values(environment).keys() - settings)
    for name in unknown:
        nearest = _nearest(name, settings)
        if nearest and not _SERVICE_LINK_NAME.fullmatch(name):
            raise ValueError(f"unknown setting {PREFIX}{name}; did you mean {PREFIX}{nearest}?")
    return [PREFIX + name for name in unknown]


def _nearest(name: str, known: Collection[str]) -> str | None:
    """Return the setting that ``name`` is a misspelling of, if any."""
    anagram = next((other for other in sorted(known) if sorted(other) == sorted(name)), None)
    return anagram or next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=_NEAR)), None)
