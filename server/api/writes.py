"""What adding items by image and by vector share: each entry is checked, and fails, alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from server.api.auth import Caller
from server.api.errors import InvalidRequest, UploadsFailed, describe, field_errors, invalid
from server.api.schemas import NewFields, WriteResult, Written
from server.api.service import Service
from server.errors import ServiceError
from server.gallery.types import NewItem

__all__ = ["parse", "store", "written"]

Fields = TypeVar("Fields", bound=NewFields)


def parse(entries: Sequence[object], model: type[Fields]) -> tuple[dict[int, Fields], dict[int, ServiceError]]:
    """The entries that fit ``model``, and what is wrong with the others, by position. An id may occur once.

    An entry is a decoded JSON value, or a line of JSON as bytes.
    """
    fit: dict[int, Fields] = {}
    failed: dict[int, ServiceError] = {}
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        try:
            fields = model.model_validate_json(entry) if isinstance(entry, bytes) else model.model_validate(entry)
        except ValidationError as error:
            failed[index] = InvalidRequest(field_errors(error.errors(), within=f"items[{index}]"))
            continue
        if fields.id in seen:
            failed[index] = invalid(f"items[{index}].id", "occurs twice in this request")
            continue
        if fields.id is not None:
            seen.add(fields.id)
        fit[index] = fields
    return fit, failed


def store(
    service: Service,
    caller: Caller,
    gallery: str,
    new: Mapping[int, NewItem],
    fingerprint: str,
    failed: Mapping[int, ServiceError],
) -> Written:
    """Store the entries that are sound, in one transaction, and tell of each what became of it.

    Raises:
        UploadsFailed: none is sound.
    """
    if not new:
        raise UploadsFailed({f"images[{index}]": error for index, error in sorted(failed.items())})
    statuses = service.galleries.put(gallery, list(new.values()), fingerprint=fingerprint)
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
    answer = Written(
        added=statuses.count("added"),
        updated=statuses.count("updated"),
        failed=len(failed),
        items=sorted(results, key=lambda result: result.index),
    )
    counts = {"added": answer.added, "updated": answer.updated}
    service.audit.record(caller.key_id, "items.put", gallery, counts)
    return answer


def written(answer: Written) -> JSONResponse:
    """201; 207 where something failed."""
    return JSONResponse(answer.model_dump(mode="json"), 207 if answer.failed else 201)
