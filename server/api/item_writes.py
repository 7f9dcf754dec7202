"""Validation and storage of the items of a request; an invalid item does not affect the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from server.api.app_state import AppState
from server.api.auth import Caller
from server.api.errors import UploadsFailed, describe
from server.domain.errors import ServiceError
from server.domain.types import NewItem
from server.domain.validation import InvalidRequest, field_errors, invalid
from vireid.schemas.items import NewItemFields, WriteResult, WriteResults

__all__ = ["parse", "store", "validated", "write_response"]

Fields = TypeVar("Fields", bound=NewItemFields)


def parse(entries: Iterable[object], schema: type[Fields]) -> tuple[dict[int, Fields], dict[int, ServiceError]]:
    """Return the valid entries and the errors of the others, by position; see :func:`validated`."""
    valid: dict[int, Fields] = {}
    failed: dict[int, ServiceError] = {}
    for index, found in validated(entries, schema):
        if isinstance(found, ServiceError):
            failed[index] = found
        else:
            valid[index] = found
    return valid, failed


def validated(entries: Iterable[object], schema: type[Fields]) -> Iterator[tuple[int, Fields | ServiceError]]:
    """Validate entries one by one: decoded JSON values, JSON as bytes, or errors, which are passed on.

    An id may occur only once.
    """
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        if isinstance(entry, ServiceError):
            yield index, entry
            continue
        try:
            fields = schema.model_validate_json(entry) if isinstance(entry, bytes) else schema.model_validate(entry)
        except ValidationError as error:
            yield index, InvalidRequest(field_errors(error.errors(), within=f"items[{index}]"))
            continue
        if fields.id in seen:
            yield index, invalid(f"items[{index}].id", "occurs twice in this request")
            continue
        if fields.id is not None:
            seen.add(fields.id)
        yield index, fields


def store(
    state: AppState,
    caller: Caller,
    gallery: str,
    new: Mapping[int, NewItem],
    fingerprint: str,
    failed: Mapping[int, ServiceError],
) -> WriteResults:
    """Store the valid items in one transaction, and return the result of each item of the request.

    Raises:
        UploadsFailed: no item is valid.
    """
    if not new:
        raise UploadsFailed({f"images[{index}]": error for index, error in sorted(failed.items())})
    statuses = state.galleries.writer.put(gallery, list(new.values()), fingerprint=fingerprint)
    results = [
        WriteResult(
            index=index,
            id=entry.item.id,
            status=status,
            modality=entry.item.modality,
            warnings=sorted(entry.item.warnings),
        )
        for (index, entry), status in zip(new.items(), statuses, strict=True)
    ]
    results += [
        WriteResult(index=index, id=None, status="failed", error=describe(error)) for index, error in failed.items()
    ]
    counts = {"added": statuses.count("added"), "updated": statuses.count("updated")}
    state.audit.record(caller.key_id, "items.put", gallery, counts)
    return WriteResults(**counts, failed=len(failed), items=sorted(results, key=lambda result: result.index))


def write_response(results: WriteResults) -> JSONResponse:
    """Return a response with status 201, or 207 if an item failed."""
    return JSONResponse(results.model_dump(mode="json"), 207 if results.failed else 201)
