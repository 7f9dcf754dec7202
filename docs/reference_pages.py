"""Reference pages of the site, generated from the OpenAPI document, the configuration classes and the commands."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel

__all__ = ["command_line", "http_api", "problem_types", "training_configuration"]

OPENAPI = Path(__file__).with_name("openapi.json")


def http_api() -> str:
    """Return the routes of the OpenAPI document with parameters, bodies and responses."""
    document = json.loads(OPENAPI.read_text("utf-8"))
    lines = ["# HTTP API", "", "Generated from `docs/openapi.json`, which the server serves at `/openapi.json`.", ""]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += [f"## {method.upper()} `{path}`", "", operation.get("summary", ""), ""]
            lines += [operation.get("description", ""), ""]
            parameters = operation.get("parameters", [])
            if parameters:
                lines += _table(("parameter", "in", "type", "description"), map(_parameter, parameters))
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                lines += [f"Body: `{kind}`{_schema_link(body.get('schema', {}))}", ""]
            lines += ["```console", *(sample["source"] for sample in operation["x-codeSamples"]), "```", ""]
            lines += _table(
                ("status", "response"),
                (
                    (code, response["description"] + "".join(map(_content, response.get("content", {}).items())))
                    for code, response in operation["responses"].items()
                ),
            )
    lines += ["## Schemas", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += [f"### {name}", "", schema.get("description", ""), ""]
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        if properties:
            lines += _table(
                ("member", "type", "required", "description"),
                (
                    (f"`{member}`", _type(value), "yes" if member in required else "", value.get("description", ""))
                    for member, value in properties.items()
                ),
            )
        elif "enum" in schema:
            lines += [", ".join(f"`{value}`" for value in schema["enum"]), ""]
    return "\n".join(lines) + "\n"


def _parameter(parameter: dict[str, Any]) -> tuple[str, ...]:
    schema = parameter.get("schema", {})
    return (f"`{parameter['name']}`", parameter["in"], _type(schema), parameter.get("description", ""))


def _content(entry: tuple[str, dict[str, Any]]) -> str:
    return f" `{entry[0]}`{_schema_link(entry[1].get('schema', {}))}"


def _schema_link(schema: dict[str, Any]) -> str:
    return f": {_type(schema)}" if schema else ""


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(_type(part) for part in schema.get("anyOf", schema.get("oneOf")))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def problem_types() -> str:
    """Return the catalogue of problem types."""
    from server.api.problem_catalogue import CATALOGUE

    lines = [
        "# Problem types",
        "",
        "An error is a problem document (RFC 9457); its `type` is a path of the server that",
    ]
    lines += ["says the same as this page, which is generated from the code.", ""]
    for entry in CATALOGUE.values():
        lines += [f"## {entry.slug}", "", f"{entry.title}, status {' or '.join(map(str, entry.statuses))}.", ""]
        lines += [entry.cause, "", f"What to do: {entry.remedy}", ""]
    return "\n".join(lines) + "\n"


def training_configuration() -> str:
    """Return every key of the training configuration with its type, default and description."""
    from training.config import TrainingConfig
    from training.methods import METHODS

    lines = ["# Training configuration", "", "Keys of a YAML file for `vireid train`, generated from the code.", ""]
    seen: list[type[BaseModel]] = [TrainingConfig, *(method.options_type for method in METHODS.values())]
    for model in seen:
        lines += [f"## {model.__name__}", "", inspect.getdoc(model) or "", ""]
        seen += [part for part in _nested(model) if part not in seen]
        lines += _table(("key", "type", "default", "description"), _keys(model))
    return "\n".join(lines) + "\n"


def _nested(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Return the configuration classes in the annotations of a model's fields."""
    pending = [field.annotation for field in model.model_fields.values()]
    while pending:
        annotation = pending.pop(0)
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            yield annotation
        pending += [part for part in get_args(annotation) if part is not Ellipsis]


def _keys(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    documented: dict[str, str] = {}
    for parent in reversed([base for base in model.__mro__ if base.__module__.startswith("training")]):
        documented |= _attribute_docstrings(parent)
    for name, field in model.model_fields.items():
        annotation = field.annotation
        kind = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
        kind = re.sub(r"annotated_types\.|[a-z_0-9]+(?=\.)|(?<!\d)\.(?=[A-Z])|typing\.", "", kind).replace("..", ".")
        default = "required" if field.is_required() else str(field.get_default())
        yield f"`{name}`", f"`{kind[:160]}`", f"`{default[:80]}`", field.description or documented.get(name, "")


def _attribute_docstrings(model: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def command_line() -> str:
    """Return every command with its arguments and options."""
    from vireid.cli import app

    lines = ["# Command line", "", "Generated from the commands; `vireid COMMAND --help` shows the same.", ""]
    return "\n".join([*lines, *_command(typer.main.get_command(app), "vireid")]) + "\n"


def _command(command: Any, name: str) -> Iterator[str]:
    yield from (f"## {name}", "", inspect.cleandoc(command.help or ""), "")
    rows = [row for parameter in command.params if (row := _option(parameter)) is not None]
    if rows:
        yield from _table(("argument or option", "default", "description"), rows)
    for child, sub in getattr(command, "commands", {}).items():
        yield from _command(sub, f"{name} {child}")


def _option(parameter: Any) -> tuple[str, ...] | None:
    if parameter.name == "help":
        return None
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    argument = parameter.param_type_name == "argument"
    default = "required" if parameter.required else "" if parameter.default is None else f"`{parameter.default}`"
    return f"`{parameter.name.upper()}`" if argument else names, default, getattr(parameter, "help", None) or ""


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return [*(f"| {' | '.join(map(_cell, row))} |" for row in lines), ""]


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", r"\|").split())
