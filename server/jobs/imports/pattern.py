"""Metadata from paths: a regular expression with named groups.

Expressions come from callers, so they use RE2, which runs in linear time; Python's engine may backtrack forever.
"""

from __future__ import annotations

from collections.abc import Callable

from server.domain.errors import EntryRejected
from server.domain.fields import ItemFields
from server.domain.validation import invalid

__all__ = ["PathPattern"]

_GROUPS = tuple(ItemFields.model_fields.keys() - {"attributes"})


class PathPattern:
    """An RE2 expression that is searched for anywhere in a path.

    Raises:
        InvalidRequest: the expression is not valid RE2, or has groups that are not named after fields of a crop.
    """

    def __init__(self, expression: str) -> None:
        import pyarrow as arrow  # imported late: it takes tens of megabytes
        import pyarrow.compute as compute

        self._extract: Callable[[str], dict[str, str] | None] = lambda path: compute.extract_regex(
            arrow.scalar(path), expression
        ).as_py()
        try:
            found = compute.extract_regex(arrow.array([], arrow.string()), expression).type
        except arrow.ArrowInvalid:
            raise invalid("pattern", "must be an RE2 expression, all of whose capturing groups have names") from None
        unknown = [field.name for field in found if field.name not in _GROUPS]
        if unknown or not found.num_fields:
            allowed = ", ".join(sorted(_GROUPS))
            raise invalid("pattern", f"must have named groups such as (?P<camera>…); allowed names: {allowed}")

    def fields(self, path: str) -> dict[str, str]:
        """Return the non-empty groups of the match by name. Raises ``EntryRejected`` if the path does not match."""
        found = self._extract(path)
        if found is None:
            raise EntryRejected("the pattern does not match its path")
        return {name: value for name, value in found.items() if value}
