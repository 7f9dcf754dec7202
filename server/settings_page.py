"""The page of all settings; ``python -m server.settings_page`` prints it."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from server.settings import PREFIX, Settings

__all__ = ["page"]

_BEGINNING = """\
# Settings

Environment variables of `vireid serve`. What is not allowed, and a name that is none of these, stops the start with a
message. With Compose they stand under `environment:` of the service. Written by `make docs`.

| variable | unset | what it is |
| --- | --- | --- |
"""


def page() -> str:
    """A Markdown table of name, default and description of each setting."""
    rows = (
        f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )
    return _BEGINNING + "".join(rows)


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.default_factory is not None:
        return "that of the package"
    return f"`{value}`" if isinstance(value, str | int | Path) else "–"


if __name__ == "__main__":
    sys.stdout.write(page())
