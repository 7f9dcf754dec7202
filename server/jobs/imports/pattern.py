"""A regular expression with named groups that finds in a path what is known of the crop.

The expressions come from callers, so they are RE2's, whose time is bounded; Python's own can be made to run for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from server.errors import EntryRejected
from server.faults import invalid
from server.fields import ItemFields

__all__ = ["PathPattern"]

_GROUPS = tuple(ItemFields.model_fields.keys() - {"attributes"})


class PathPattern:
    """An expression, searched for anywhere in a path.

    Raises:
        InvalidRequest: it is no RE2 expression, or has other groups than named ones of the fields of a crop.
    """

    def __init__(self, expression: str) -> None:
        import pyarrow as arrow  # only here and for Parquet: it takes tens of megabytes
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
            raise invalid("pattern", f"must have groups such as (?P<camera>…), of {', '.join(sorted(_GROUPS))} alone")

    def fields(self, path: str) -> dict[str, str]:
        """What the groups that take part have found, by name. Raises ``EntryRejected`` where nothing matches."""
        found = self._extract(path)
        if found is None:
            raise EntryRejected("the pattern does not match its path")
        return {name: value for name, value in found.items() if value}
