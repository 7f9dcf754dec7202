"""The Python client: the calls of the HTTP API as methods, but for audit and metrics. Needs neither server nor torch.

>>> from vireid.client import Client
>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     client.search("night", ["crop.png"], k=5).hits[0].item.id
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack
from urllib.parse import quote

import httpx2
import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # typing's own is not enough for pydantic before Python 3.12

from models.card import Modality
from vireid.transport import ApiError, ClientError, Transport, UnexpectedAnswer, Unreachable
from vireid.wire import (
    AddedKey,
    Alias,
    AliasesList,
    Comparison,
    CropWarning,
    Deleted,
    Duplicate,
    DuplicatesPage,
    FieldError,
    Filter,
    GalleriesPage,
    Gallery,
    Group,
    Hit,
    Item,
    ItemFields,
    ItemFilter,
    ItemsPage,
    Job,
    JobFailure,
    JobFailuresPage,
    JobsPage,
    JobState,
    Key,
    KeysPage,
    Limits,
    ModalityChoice,
    Models,
    Problem,
    Readiness,
    Receipt,
    ReceiptsPage,
    Rerank,
    Scalar,
    Scope,
    SearchAnswer,
    SearchAnswers,
    SearchOutcome,
    VectorType,
    Written,
    WrittenItems,
)

__all__ = [
    "DEFAULT_URL",
    "AddedKey",
    "ApiError",
    "Client",
    "ClientError",
    "Comparison",
    "CropWarning",
    "Duplicate",
    "FieldError",
    "Filter",
    "Gallery",
    "GalleryChanges",
    "Group",
    "Hit",
    "Image",
    "ImportKind",
    "Item",
    "ItemChanges",
    "ItemFields",
    "ItemFilter",
    "Job",
    "JobFailure",
    "JobState",
    "Key",
    "Limits",
    "Modality",
    "ModalityChoice",
    "Models",
    "Problem",
    "Readiness",
    "Receipt",
    "Rerank",
    "Scope",
    "SearchAnswer",
    "SearchOptions",
    "SearchOutcome",
    "StoredSearch",
    "UnexpectedAnswer",
    "Unreachable",
    "VectorType",
    "Vectors",
    "Written",
    "import_kind",
]

DEFAULT_URL = "http://127.0.0.1:8000"

Image = str | Path | bytes
"""A file's path, or a file's content: JPEG, PNG, WebP or BMP."""
Vectors = NDArray[np.float32]

_NPY = "application/x-npy"
_NDJSON = "application/x-ndjson"
_VECTORS_OF_A_REQUEST = 10_000
_ALONE_TO_BLAME = {413, 415, 422}
_RECONNECT_S = 1.0

ImportKind = Literal["tar", "tar.gz", "zip", "ndjson", "parquet"]
_IMPORTS: Mapping[ImportKind, str] = {
    "tar": "application/x-tar",
    "tar.gz": "application/gzip",
    "zip": "application/zip",
    "ndjson": _NDJSON,
    "parquet": "application/vnd.apache.parquet",
}
_ENDINGS: Mapping[str, ImportKind] = {
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".zip": "zip",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}


class GalleryChanges(TypedDict, total=False):
    """What to change of a gallery; None clears."""

    retention_days: int | None
    description: str | None


class ItemChanges(TypedDict, total=False):
    """What to change of an item; None clears."""

    identity: str | None
    camera: str | None
    captured_at: AwareDatetime | None
    attributes: dict[str, Scalar]


class SearchOptions(TypedDict, total=False):
    """How to search; what is left out is as the server has it: ten hits, the mean of the images, no filter."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    k: int
    filter: Filter | None
    fusion: Literal["mean", "max"]
    """How several images of the person make one ranking."""
    group_by: Literal["identity"] | None
    """Adds ``groups`` to the answer; goes with no ``rerank``."""
    rerank: bool | Rerank
    """Order the best hits by their neighbours too."""
    min_score: float | None
    max_false_match_rate: float | None
    cursor: str | None
    """``next_cursor`` of the page before; goes with neither ``group_by`` nor ``rerank``."""
    exact: bool
    """Look at every item also in a large gallery of a server that was told to approximate."""


class StoredSearch(SearchOptions, total=False):
    """A search without images: by an item of the gallery, or by a unit vector, whose modality must be told."""

    item_id: str
    vector: Vectors
    modality: Modality | Literal["visible", "infrared"]


_ITEM_CHANGES = TypeAdapter(ItemChanges)
_SEARCH_OPTIONS = TypeAdapter(SearchOptions)


class Client:
    """A connection to a vireid server. Threads may share one.

    ``key`` is an API key, needed where the server asks for one. ``timeout`` is in seconds, without
    a byte from the server. A request that the server is too busy for (429) is sent again after the time that it names,
    ``retries`` times at most and never after more than a minute. ``transport`` and ``sleep`` are the seams for tests.

    Every method raises :class:`ApiError` where the server refuses or fails, :class:`Unreachable` where no answer comes,
    :class:`UnexpectedAnswer` where something else than a vireid server answers; an image given by its path may raise
    ``OSError``.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url
        self._retries, self._sleep = retries, sleep
        self._http = Transport(base_url, key, timeout=timeout, retries=retries, transport=transport, sleep=sleep)
        self._limits: Limits | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    # Service

    def ready(self) -> Readiness:
        """The state of the server; one that is not ready raises :class:`ApiError` with status 503 and its reasons."""
        return self._http.ask(Readiness, "GET", "/readyz")

    def limits(self) -> Limits:
        """Every limit a client must respect; asked for once."""
        if self._limits is None:
            self._limits = self._http.ask(Limits, "GET", "/v1/limits")
        return self._limits

    def models(self) -> Models:
        """The loaded models' cards, and which is the default."""
        return self._http.ask(Models, "GET", "/v1/models")

    # Embeddings

    def embed(self, images: Iterable[Image], modality: ModalityChoice = "auto", model: str | None = None) -> Vectors:
        """Embed images, in as many requests as it takes: float32 ``[N, D]``, rows of unit length.

        All are needed: one that cannot be used raises :class:`ApiError`, whose ``by_position`` names it.

        Raises:
            ValueError: there is no image.
        """
        limits = self.limits()
        parts: list[Vectors] = []
        done = 0
        for batch in limits.batches(map(_content, images), len, limits.max_images):
            form = _form(modality=modality, model=model)
            try:
                answer = self._http.send(
                    "POST", "/v1/embeddings", data=form, files=_files(batch), headers={"Accept": _NPY}
                )
            except ApiError as error:
                raise error.moved(done) from None
            parts.append(np.load(io.BytesIO(answer.content), allow_pickle=False))
            done += len(batch)
        if not parts:
            raise ValueError("expected at least one image, found none")
        return np.concatenate(parts)

    def compare(
        self, first: Image, second: Image, modality: ModalityChoice = "auto", model: str | None = None
    ) -> Comparison:
        """How alike two crops are."""
        files = _files([_content(first), _content(second)])
        form = _form(modality=modality, model=model)
        return self._http.ask(Comparison, "POST", "/v1/compare", data=form, files=files)

    # Galleries

    def create_gallery(
        self,
        name: str,
        *,
        model: str | None = None,
        retention_days: int | None = None,
        description: str | None = None,
        vector_type: VectorType = "float32",
        thumbnails: bool = True,
    ) -> Gallery:
        """Create a gallery, bound to a model (without a name, the default one)."""
        body = {
            "name": name,
            "model": model,
            "retention_days": retention_days,
            "description": description,
            "vector_type": vector_type,
            "thumbnails": thumbnails,
        }
        return self._http.ask(Gallery, "POST", "/v1/galleries", json=body)

    def galleries(self) -> Iterator[Gallery]:
        """Every gallery that the key covers, by name; pages are fetched as they are needed."""
        pages = self._http.pages(GalleriesPage, "/v1/galleries", {"limit": self.limits().max_page})
        return chain.from_iterable(page.galleries for page in pages)

    def gallery(self, name: str) -> Gallery:
        """One gallery."""
        return self._http.ask(Gallery, "GET", _path("galleries", name))

    def update_gallery(self, name: str, **changes: Unpack[GalleryChanges]) -> Gallery:
        """Change retention or description."""
        return self._http.ask(Gallery, "PATCH", _path("galleries", name), json=changes)

    def delete_gallery(self, name: str) -> None:
        """Delete a gallery with all that it holds, for good."""
        self._http.send("DELETE", _path("galleries", name))

    def aliases(self) -> dict[str, str]:
        """The gallery of each alias."""
        found = self._http.ask(AliasesList, "GET", "/v1/aliases").aliases
        return {one.alias: one.gallery for one in found}

    def set_alias(self, alias: str, gallery: str) -> None:
        """Have ``alias`` stand for a gallery, from now on if it stood for another."""
        self._http.ask(Alias, "PUT", _path("aliases", alias), json={"gallery": gallery})

    def remove_alias(self, alias: str) -> None:
        """Take an alias away; the gallery stays."""
        self._http.send("DELETE", _path("aliases", alias))

    # Items

    def add_items(self, gallery: str, items: Iterable[tuple[Image, ItemFields]]) -> list[Written]:
        """Add crops, in as many requests as it takes, and tell of each what became of it, in the order given.

        A bad image fails alone and raises nothing. An :class:`ApiError` concerns a whole request; the requests before
        it were stored. The same id again replaces, so a call that failed may be repeated.
        """
        limits = self.limits()
        path = _path("galleries", gallery, "items")
        entries = ((_content(image), fields.model_dump_json()) for image, fields in items)
        written: list[Written] = []
        for batch in limits.batches(entries, lambda entry: len(entry[0]) + len(entry[1].encode()), limits.max_images):
            form = {"items": f"[{','.join(fields for _, fields in batch)}]"}
            files = _files([content for content, _ in batch])
            written += self._write(len(batch), len(written), path, data=form, files=files)
        return written

    def add_vectors(
        self, gallery: str, items: Iterable[tuple[Vectors, ItemFields]], *, fingerprint: str | None = None
    ) -> list[Written]:
        """Add embeddings that the gallery's model made elsewhere: float32 ``[D]`` of unit length, modality stated.

        ``fingerprint`` is that of the model, checked where given. Otherwise as :meth:`add_items`.
        """
        path = _path("galleries", gallery, "vectors")
        params = {} if fingerprint is None else {"fingerprint": fingerprint}
        lines = (json.dumps({**fields.model_dump(mode="json"), "vector": vector.tolist()}) for vector, fields in items)
        written: list[Written] = []
        for batch in self.limits().batches(lines, len, _VECTORS_OF_A_REQUEST):
            body, headers = "\n".join(batch), {"Content-Type": _NDJSON}
            written += self._write(len(batch), len(written), path, content=body, headers=headers, params=params)
        return written

    def items(self, gallery: str, where: ItemFilter | None = None) -> Iterator[Item]:
        """The items that pass the filter, by id; pages are fetched as they are needed."""
        params = _params(where) | {"limit": self.limits().max_page}
        pages = self._http.pages(ItemsPage, _path("galleries", gallery, "items"), params)
        return chain.from_iterable(page.items for page in pages)

    def item(self, gallery: str, item: str) -> Item:
        """One item."""
        return self._http.ask(Item, "GET", _path("galleries", gallery, "items", item))

    def update_item(self, gallery: str, item: str, **changes: Unpack[ItemChanges]) -> Item:
        """Change what is known of an item; its image and vector stay.

        Raises:
            ValueError: a value is of the wrong type, or ``captured_at`` has no time zone.
        """
        body = _ITEM_CHANGES.dump_python(_ITEM_CHANGES.validate_python(changes), mode="json")
        return self._http.ask(Item, "PATCH", _path("galleries", gallery, "items", item), json=body)

    def duplicates(
        self, gallery: str, *, min_score: float = 0.98, modality: Modality | None = None
    ) -> Iterator[Duplicate]:
        """Pairs of items whose cosine is at least ``min_score``, each once, in the order of storing.

        Every item is compared with every other, a part with each request, as the pairs are taken from the iterator.
        """
        params: dict[str, Any] = {"min_score": min_score, "limit": self.limits().max_page}
        if modality is not None:
            params["modality"] = modality.value
        pages = self._http.pages(DuplicatesPage, _path("galleries", gallery, "duplicates"), params)
        return chain.from_iterable(page.pairs for page in pages)

    def delete_item(self, gallery: str, item: str) -> None:
        """Delete an item with its vector and image, for good."""
        self._http.send("DELETE", _path("galleries", gallery, "items", item))

    def erase(self, gallery: str, where: ItemFilter) -> Receipt:
        """Delete every item that passes the filter, for good, and return the receipt; an empty filter is refused."""
        path = _path("galleries", gallery, "items")
        return self._http.ask(Deleted, "DELETE", path, params=_params(where)).receipt

    def receipts(self) -> Iterator[Receipt]:
        """Every receipt of an erasure that the key covers, newest first."""
        pages = self._http.pages(ReceiptsPage, "/v1/erasures", {"limit": self.limits().max_page})
        return chain.from_iterable(page.receipts for page in pages)

    def receipt(self, id: str) -> Receipt:
        """One receipt."""
        return self._http.ask(Receipt, "GET", _path("erasures", id))

    def image(self, gallery: str, item: str) -> bytes:
        """The thumbnail of an item, a JPEG file; WebP where an earlier build stored it."""
        return self._http.send("GET", _path("galleries", gallery, "items", item, "image")).content

    # Search

    def search(
        self,
        gallery: str,
        images: Sequence[Image] = (),
        *,
        item_id: str | None = None,
        vector: Vectors | None = None,
        modality: ModalityChoice = "auto",
        **options: Unpack[SearchOptions],
    ) -> SearchAnswer:
        """Rank a gallery for one person: by images of that person, by an item of the gallery, or by a unit vector.

        ``modality`` is that of the images or of the vector. For the next page ask the same again, with the answer's
        ``next_cursor`` as ``cursor``; :meth:`hits` does.

        Raises:
            ValueError: not exactly one of ``images``, ``item_id`` and ``vector`` is given, or an option is wrong.
        """
        if bool(images) + (item_id is not None) + (vector is not None) != 1:
            raise ValueError("expected exactly one of images, item_id and vector")
        path, query = _path("galleries", gallery, "search"), _query(options)
        if images:
            form = _form(modality=modality, query=json.dumps(query))
            return self._http.ask(SearchAnswer, "POST", path, data=form, files=_files(map(_content, images)))
        source = {"item_id": item_id} if vector is None else {"vector": vector.tolist(), "modality": modality}
        return self._http.ask(SearchAnswer, "POST", path, json={"query": query, **source})

    def hits(
        self,
        gallery: str,
        images: Sequence[Image] = (),
        *,
        item_id: str | None = None,
        vector: Vectors | None = None,
        modality: ModalityChoice = "auto",
        **options: Unpack[SearchOptions],
    ) -> Iterator[Hit]:
        """Every hit of a search, best first; pages of ``k`` are fetched as they are needed. As :meth:`search`."""
        contents = [_content(image) for image in images]  # a file may be gone when the next page is asked for
        while True:
            answer = self.search(gallery, contents, item_id=item_id, vector=vector, modality=modality, **options)
            yield from answer.hits
            if answer.next_cursor is None:
                return
            options["cursor"] = answer.next_cursor

    def search_many(self, gallery: str, searches: Iterable[StoredSearch]) -> list[SearchOutcome]:
        """Make many searches, each by an item or a vector, in as many requests as it takes; answers in the order given.

        Far faster than one by one where filters are the same. A search that is not possible fails alone.

        Raises:
            ValueError: an option is wrong.
        """
        limits = self.limits()
        path = _path("galleries", gallery, "searches")
        found: list[SearchOutcome] = []
        for batch in limits.batches(map(_stored_search, searches), len, limits.max_searches):
            body, headers = f'{{"searches": [{",".join(batch)}]}}', {"Content-Type": "application/json"}
            answers = self._http.ask(SearchAnswers, "POST", path, content=body, headers=headers).answers
            found += [answer.model_copy(update={"index": len(found) + answer.index}) for answer in answers]
        return found

    # Imports and jobs

    def import_file(
        self,
        gallery: str,
        file: Path | Iterable[bytes],
        kind: ImportKind | None = None,
        *,
        modality: ModalityChoice = "auto",
        pattern: str | None = None,
        fingerprint: str | None = None,
    ) -> Job:
        """Upload an archive of crops, or ready-made vectors, in constant memory; the server works on it from then on.

        ``kind`` is told by a path's ending. ``pattern`` is an RE2 expression whose named groups (identity, camera,
        captured_at, id, modality) are searched for in each crop's path; ``fingerprint`` is that of the model that made
        the vectors. What is there already is skipped, so an upload that failed may be repeated.

        Raises:
            ValueError: the ending tells no kind, or there is none to tell it.
        """
        path = _path("galleries", gallery, "imports")
        if isinstance(file, Path):
            kind = kind or import_kind(file)
        if kind is None:
            raise ValueError("expected the kind of what is imported, found none")
        params = _form(modality=modality, pattern=pattern, fingerprint=fingerprint)
        headers = {"Content-Type": _IMPORTS[kind]}
        if isinstance(file, Path):
            with file.open("rb") as body:
                return self._http.upload(Job, path, body, params=params, headers=headers)
        return self._http.upload(Job, path, file, params=params, headers=headers)

    def import_directory(
        self, gallery: str, directory: str, *, modality: ModalityChoice = "auto", pattern: str | None = None
    ) -> Job:
        """Import a folder of the server's own machine, below one of its import roots. As :meth:`import_file`."""
        path, body = _path("galleries", gallery, "imports"), {"directory": directory, "pattern": pattern}
        return self._http.ask(Job, "POST", path, params=_form(modality=modality), json=body)

    def jobs(self, state: JobState | None = None) -> Iterator[Job]:
        """The jobs that the key may see, newest first; pages are fetched as they are needed."""
        params = {"limit": self.limits().max_page, **_form(state=state)}
        return chain.from_iterable(page.jobs for page in self._http.pages(JobsPage, "/v1/jobs", params))

    def job(self, job: str) -> Job:
        """One job."""
        return self._http.ask(Job, "GET", _path("jobs", job))

    def watch(self, job: str) -> Iterator[Job]:
        """The job now and after each change, until it has ended. A server that restarts meanwhile is waited for."""
        tries = 0
        while True:
            try:
                for now in self._http.events(Job, _path("jobs", job, "events")):
                    tries = 0
                    yield now
                    if now.state.ended:
                        return
                lost = Unreachable(f"{self.base_url} has stopped before the end of {job}")
            except Unreachable as error:
                lost = error
            if tries >= self._retries:
                raise lost
            tries += 1
            self._sleep(_RECONNECT_S)

    def cancel_job(self, job: str) -> Job:
        """End a job where it stands; what it has done stays."""
        return self._http.ask(Job, "POST", _path("jobs", job, "cancel"))

    def job_failures(self, job: str) -> Iterator[JobFailure]:
        """What failed of a job, with reasons; pages are fetched as they are needed."""
        pages = self._http.pages(JobFailuresPage, _path("jobs", job, "failures"), {"limit": self.limits().max_page})
        return chain.from_iterable(page.failures for page in pages)

    # Life of a gallery

    def snapshot(self, gallery: str) -> Iterator[bytes]:
        """A gallery with everything in it as one file (tar), block by block; needs a key with the scope ``admin``.

        One that breaks off raises :class:`Unreachable`, and could not be restored.
        """
        return self._http.download(_path("galleries", gallery, "snapshot"))

    def restore(self, gallery: str, file: Path | Iterable[bytes]) -> Job:
        """Make a new gallery from a snapshot. It appears, whole, when the job has succeeded."""
        path, headers = _path("galleries", gallery, "restore"), {"Content-Type": _IMPORTS["tar"]}
        if isinstance(file, Path):
            with file.open("rb") as body:
                return self._http.upload(Job, path, body, headers=headers)
        return self._http.upload(Job, path, file, headers=headers)

    def reembed(self, gallery: str, model: str) -> Job:
        """Embed every item anew with another model, from its thumbnail; searches change over at once, at the end."""
        return self._http.ask(Job, "POST", _path("galleries", gallery, "reembed"), json={"model": model})

    # Keys

    def api_keys(self) -> Iterator[Key]:
        """Every API key, without the secrets."""
        pages = self._http.pages(KeysPage, "/v1/keys", {"limit": self.limits().max_page})
        return chain.from_iterable(page.keys for page in pages)

    def create_key(self, name: str, scopes: Sequence[Scope], galleries: Sequence[str] | None = None) -> AddedKey:
        """Create an API key, for all galleries unless some are named. Its secret is in this answer alone."""
        body = {"name": name, "scopes": scopes, "galleries": galleries}
        return self._http.ask(AddedKey, "POST", "/v1/keys", json=body)

    def delete_key(self, key_id: str) -> None:
        """Delete an API key: it is refused from now on."""
        self._http.send("DELETE", _path("keys", key_id))

    def _write(self, count: int, done: int, path: str, **content: Any) -> list[Written]:
        """Send ``count`` items; positions in the result count on from ``done``."""
        try:
            results = self._http.ask(WrittenItems, "POST", path, **content).items
        except ApiError as error:
            reasons = error.by_position
            if error.status not in _ALONE_TO_BLAME or reasons.keys() != set(range(count)):
                raise error.moved(done) from None
            results = tuple(_failed(index, error.problem, reasons[index]) for index in range(count))
        return [result.model_copy(update={"index": done + result.index}) for result in results]


def _failed(index: int, problem: Problem, reason: str) -> Written:
    """One of the items of a request in which every one failed, which the server answers as an error."""
    own = Problem(status=problem.status, type=problem.type, title=problem.title, detail=reason)
    return Written(index=index, id=None, status="failed", error=own)


def _query(options: SearchOptions) -> dict[str, Any]:
    query: dict[str, Any] = _SEARCH_OPTIONS.dump_python(_SEARCH_OPTIONS.validate_python(options), mode="json")
    return {name: value for name, value in query.items() if value is not None}


def _stored_search(search: StoredSearch) -> str:
    options: dict[str, Any] = dict(search)
    body = {name: options.pop(name) for name in ("item_id", "vector", "modality") if name in options}
    if "vector" in body:
        body["vector"] = body["vector"].tolist()
    return json.dumps({**body, "query": _query(options)})  # type: ignore[arg-type]


def import_kind(path: Path) -> ImportKind:
    """What a file for an import is, by its ending.

    Raises:
        ValueError: it is none of those that are taken.
    """
    for ending, kind in _ENDINGS.items():
        if path.name.lower().endswith(ending):
            return kind
    raise ValueError(f"{path.name} must end in {', '.join(_ENDINGS)}")


def _content(image: Image) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def _files(contents: Iterable[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    # Names of files may tell about people or machines and are of no use to the server.
    return [("images", ("image", content, "application/octet-stream")) for content in contents]


def _form(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _params(where: ItemFilter | None) -> dict[str, Any]:
    return {} if where is None else where.model_dump(mode="json", exclude_defaults=True)


def _path(*segments: str) -> str:
    for segment in segments:
        if segment in {"", ".", ".."}:  # would name another resource once the path is normalised
            raise ClientError(f"{segment!r} is no name or id")
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)
