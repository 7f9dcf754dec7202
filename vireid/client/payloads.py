"""Contents of requests: paths, forms, images, batches and search options."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, TypedDict, TypeVar
from urllib.parse import quote

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray
from pydantic import ValidationError

from models.card import Modality
from vireid.client.errors import InvalidRequest
from vireid.schemas.fields import ModalityChoice, Scalar
from vireid.schemas.filters import Filter
from vireid.schemas.imports import ConflictChoice
from vireid.schemas.items import ItemChanges
from vireid.schemas.limits import Limits
from vireid.schemas.search import Feedback, Fusion, RerankOptions, SearchQuery

__all__ = [
    "IMPORT_TYPES",
    "AnyConflict",
    "AnyModality",
    "GalleryUpdate",
    "Image",
    "ImportKind",
    "ItemUpdate",
    "Progress",
    "SearchOptions",
    "StoredSearch",
    "Vectors",
    "batches",
    "changes_body",
    "filter_params",
    "form_fields",
    "image_content",
    "image_files",
    "import_kind",
    "query_body",
    "resource_path",
    "stored_search_body",
]

Image: TypeAlias = "str | Path | bytes | BinaryIO | PIL.Image.Image | NDArray[np.uint8] | NDArray[np.uint16]"
"""An image: the path, content or open file of an image file; a Pillow image; or an array, RGB ``[H, W, 3]``
or grey ``[H, W]`` of uint8, or deep infrared ``[H, W]`` of uint16."""
Vectors = NDArray[np.float32]
AnyModality = ModalityChoice | Modality | Literal["visible", "infrared", "auto"]
"""``auto`` lets the server detect the modality from the pixels."""
AnyConflict = ConflictChoice | Literal["fail", "keep", "replace"]
Entry = TypeVar("Entry")

Progress = Callable[[int], object]
"""Called with the number of entries that are done so far."""

ImportKind = Literal["tar", "tar.gz", "zip", "ndjson", "parquet"]
IMPORT_TYPES: Mapping[ImportKind, str] = {
    "tar": "application/x-tar",
    "tar.gz": "application/gzip",
    "zip": "application/zip",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
"""Media types of the files that can be imported."""

_KIND_BY_SUFFIX: Mapping[str, ImportKind] = {
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".zip": "zip",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_PART_OVERHEAD = 512  # bytes of boundary and headers of an image's part, rounded up


class GalleryUpdate(TypedDict, total=False):
    """Changes to a gallery; None clears a value."""

    retention_days: int | None
    description: str | None


class ItemUpdate(TypedDict, total=False):
    """Changes to an item; None clears a value."""

    identity: str | None
    camera: str | None
    captured_at: datetime | None
    attributes: dict[str, Scalar]


class SearchOptions(TypedDict, total=False):
    """Options of a search, as in :class:`SearchQuery`; omitted ones have the server's defaults."""

    k: int
    filter: Filter | None
    fusion: Fusion | Literal["mean", "max"]
    group_by: Literal["identity"] | None
    rerank: bool | RerankOptions
    min_score: float | None
    max_false_match_rate: float | None
    max_expected_false_hits: float | None
    paginate: bool
    cursor: str | None
    exact: bool
    feedback: Feedback | None


class StoredSearch(SearchOptions, total=False):
    """A search by an item of the gallery, or by a unit vector and its modality."""

    item_id: str
    vector: Vectors
    modality: Modality | Literal["visible", "infrared"]


def query_body(options: SearchOptions) -> dict[str, Any]:
    """Return the options as JSON.

    Raises:
        InvalidRequest: an option is unknown or has an invalid value.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return SearchQuery.model_validate(given).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        raise _invalid(error) from None


def stored_search_body(search: StoredSearch) -> str:
    """Return a search without images as JSON text.

    Raises:
        InvalidRequest: as :func:`query_body`.
    """
    options: dict[str, Any] = dict(search)
    body = {name: options.pop(name) for name in ("item_id", "vector", "modality") if name in options}
    if "vector" in body:
        body["vector"] = body["vector"].tolist()
    return json.dumps({**body, "query": query_body(options)})  # type: ignore[arg-type]


def changes_body(changes: ItemUpdate) -> dict[str, Any]:
    """Return the changes of an item as JSON.

    Raises:
        InvalidRequest: a value is invalid; ``captured_at`` needs a time zone.
    """
    try:
        return ItemChanges.model_validate(changes).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        raise _invalid(error) from None


def batches(
    limits: Limits, entries: Iterable[Entry], size: Callable[[Entry], int], max_entries: int
) -> Iterator[list[Entry]]:
    """Split ``entries`` into requests, in order, of at most ``max_entries``; ``size`` returns the bytes of an entry.

    An entry too large for any request is a batch of its own, for the server to refuse.
    """
    batch: list[Entry] = []
    total = 0
    for entry in entries:
        needed = size(entry) + _PART_OVERHEAD
        if batch and (len(batch) == max_entries or total + needed > limits.max_body_bytes):
            yield batch
            batch, total = [], 0
        batch.append(entry)
        total += needed
    if batch:
        yield batch


def import_kind(path: Path) -> ImportKind:
    """Return what a file to import is, by its suffix.

    Raises:
        InvalidRequest: the suffix is not one of an archive or of vectors.
    """
    for suffix, kind in _KIND_BY_SUFFIX.items():
        if path.name.lower().endswith(suffix):
            return kind
    raise InvalidRequest(f"{path.name} must end in {', '.join(_KIND_BY_SUFFIX)}")


def image_content(image: Image) -> bytes:
    """Return the content of an image file; a Pillow image or an array is encoded as PNG, without loss.

    Raises:
        InvalidRequest: an image or array of another type or shape, or a file opened as text.
        OSError: the file cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _encode_array(image)
    if isinstance(image, PIL.Image.Image):
        return _encode_image(PIL.ImageOps.exif_transpose(image))
    content = image.read()
    if not isinstance(content, bytes):
        raise InvalidRequest("expected a file opened in binary mode, found one opened as text")
    return content


def _encode_array(pixels: NDArray[Any]) -> bytes:
    rgb = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    if not rgb and not (pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)):
        shape = ", ".join(map(str, pixels.shape))
        raise InvalidRequest(f"expected uint8 [H, W, 3], uint8 [H, W] or uint16 [H, W], found {pixels.dtype} [{shape}]")
    return _encode_image(PIL.Image.fromarray(pixels))


def _encode_image(image: PIL.Image.Image) -> bytes:
    if image.mode in ("F", "I"):
        raise InvalidRequest(f"expected an image of 8 or 16 bits, found mode {image.mode}; convert it first")
    if image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def image_files(contents: Iterable[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Return the images of a form. File names are not sent: they may identify people or machines."""
    return [("images", ("image", content, "application/octet-stream")) for content in contents]


def form_fields(**fields: str | None) -> dict[str, str]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def filter_params(where: Filter | None) -> dict[str, Any]:
    """Return a filter as query parameters: lists are repeated, attributes are JSON text."""
    params = {} if where is None else where.model_dump(mode="json", exclude_defaults=True)
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in params.items()}


def resource_path(*segments: str) -> str:
    """Return the path of a resource.

    Raises:
        InvalidRequest: a segment is empty or would name another resource once the path is normalised.
    """
    for segment in segments:
        if segment in {"", ".", ".."}:
            raise InvalidRequest(f"{segment!r} is not a name or id")
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def _invalid(error: ValidationError) -> InvalidRequest:
    reasons = (f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
    return InvalidRequest("; ".join(reasons))
