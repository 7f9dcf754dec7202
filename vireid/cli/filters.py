"""The options that select items, shared by searches, lists, duplicates and erasures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from vireid.client import Filter

__all__ = ["FilterValues", "to_filter", "with_filter"]

FilterValues = dict[str, Any]
"""Values of the options below, by the name of the filter's field."""

_WARNINGS = "<too_small|too_dark|blurred|not_person_shaped>"


def _several(flag: str, text: str, metavar: str | None = None) -> Any:
    return Annotated[list[str] | None, typer.Option(flag, help=f"{text}; repeatable.", metavar=metavar)]


_OPTIONS: Mapping[str, Any] = {
    "modality": Annotated[
        Literal["visible", "infrared", "opposite"] | None,
        typer.Option("--among", help="Only items of this modality; opposite: the one that the query does not have."),
    ],
    "ids": _several("--id", "Only the item with this id"),
    "exclude_ids": _several("--exclude-id", "Not the item with this id"),
    "identities": _several("--identity", "Only items of this identity"),
    "exclude_identities": _several("--exclude-identity", "No items of this identity"),
    "cameras": _several("--camera", "Only items of this camera"),
    "exclude_cameras": _several("--exclude-camera", "No items of this camera"),
    "captured_from": Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only items captured at this time or later.")
    ],
    "captured_to": Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only items captured earlier.")],
    "attributes": _several("--attribute", "Only items with this attribute", "NAME=VALUE"),
    "exclude_attributes": _several("--exclude-attribute", "No items with this attribute", "NAME=VALUE"),
    "warnings": _several("--warning", "Only items with this warning", _WARNINGS),
    "exclude_warnings": _several("--exclude-warning", "No items with this warning", _WARNINGS),
}


def with_filter(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above, and pass their values as its parameter ``where``."""
    hints = get_type_hints(command, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]
    place = next(place for place, parameter in enumerate(own) if parameter.name == "where")
    names = {f"where_{name}": name for name in _OPTIONS}
    options = [
        inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=_OPTIONS[name])
        for key, name in names.items()
    ]

    @wraps(command)
    def filtered(**values: Any) -> None:
        chosen = {name: values.pop(key) for key, name in names.items()}
        command(**values, where={name: value for name, value in chosen.items() if value})

    parameters = [*own[:place], *options, *own[place + 1 :]]
    filtered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    filtered.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return filtered


def to_filter(where: FilterValues) -> Filter:
    """Return the filter of a command's options.

    Raises:
        typer.BadParameter: a time, warning, id or attribute is not valid.
    """
    from pydantic import ValidationError

    from vireid.client import Filter

    values = dict(where)
    for name in ("attributes", "exclude_attributes"):
        values[name] = dict(map(_attribute, values.get(name, ())))
    try:
        return Filter(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(
            f"{first['input']}: {first['msg'].removeprefix('Value error, ')}", param_hint=_flag(str(first["loc"][0]))
        ) from None


def _flag(name: str) -> str:
    return str(_OPTIONS[name].__metadata__[0].default)  # the first argument of typer.Option


def _attribute(text: str) -> tuple[str, str | int | float | bool]:
    """Return name and value of ``NAME=VALUE``; a value that is a JSON number, true or false is one."""
    import json

    name, sign, value = text.partition("=")
    if not sign or not name:
        raise typer.BadParameter(f"expected NAME=VALUE, found {text}", param_hint="--attribute")
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    return name, parsed if isinstance(parsed, str | int | float | bool) else value
