"""Vectors as NDJSON, read in the reader process: line by line, in constant memory."""

from __future__ import annotations

import codecs
from array import array
from collections.abc import Iterator
from typing import IO, Any

from pydantic_core import from_json

from server.jobs.imports.progress import report_progress
from server.jobs.imports.vector_rows import VectorRow, VectorSurvey
from server.jobs.upload import Upload

__all__ = ["read_ndjson"]

_LONGEST_LINE = 4 * 2**20


def read_ndjson(upload: Upload, after: tuple[int, int] | None, dimension: int) -> Iterator[VectorSurvey | VectorRow]:
    """Yield the number of rows, then those behind ``after``; empty lines do not count.

    A position is the number of a line, from 1, and of the byte behind it.
    """
    with upload.open() as file:
        yield VectorSurvey(sum(line is None or bool(line.strip()) for line in _lines(file)), [])
        number, offset = after or (0, 0)
        file.seek(offset)
        for line in _lines(file):
            number += 1
            if line is None or line.strip():
                yield _row(line, number, file.tell(), dimension)


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the lines; None for one that is too long."""
    start = file.tell()
    while line := file.readline(_LONGEST_LINE + 1):
        report_progress()
        if len(line) <= _LONGEST_LINE:
            yield line.removeprefix(codecs.BOM_UTF8) if not start else line
        else:
            while line and not line.endswith(b"\n"):
                report_progress()
                line = file.readline(_LONGEST_LINE)
            yield None
        start = -1


def _row(line: bytes | None, number: int, end: int, dimension: int) -> VectorRow:
    name, position = f"line {number}", (number, end)
    if line is None:
        return VectorRow(name, position, error=("rejected", f"it has more than {_LONGEST_LINE:,} bytes"))
    try:
        fields = from_json(line)
    except ValueError:
        return VectorRow(name, position, error=("invalid", "body", "is not valid JSON"))
    if not isinstance(fields, dict):
        return VectorRow(name, position, error=("invalid", "body", "must be an object"))
    vector = fields.pop("vector", None)
    if error := _fault(vector, dimension):
        return VectorRow(name, position, error=error)
    try:
        return VectorRow(name, position, fields, "<f8", _numbers(vector).tobytes())
    except (TypeError, ValueError, OverflowError):
        return VectorRow(name, position, error=("invalid", "vector", "must contain only numbers"))


def _fault(vector: Any, dimension: int) -> tuple[str, ...] | None:
    if vector is None:
        return "invalid", "vector", "is required"
    if not isinstance(vector, list):
        return "invalid", "vector", "must be an array"
    return None if len(vector) == dimension else ("dimension", str(len(vector)))


def _numbers(vector: list[Any]) -> array[float]:
    try:
        return array("d", vector)
    except TypeError:
        return array("d", map(float, vector))  # text that is a number
