"""The client class: each call of the HTTP API as a method."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack
from uuid import uuid4

import httpx2
import numpy as np

from models.card import Card
from vireid import DEFAULT_URL
from vireid.client.errors import ApiError, InvalidRequest, JobFailed, UnexpectedAnswer, Unreachable
from vireid.client.payloads import (
    IMPORT_TYPES,
    AnyConflict,
    AnyModality,
    GalleryUpdate,
    Image,
    ImportKind,
    ItemUpdate,
    Progress,
    SearchOptions,
    StoredSearch,
    Vectors,
    batches,
    changes_body,
    filter_params,
    form_fields,
    image_content,
    image_files,
    import_kind,
    query_body,
    resource_path,
    stored_search_body,
)
from vireid.client.transport import Transport
from vireid.schemas.aliases import Alias, AliasesList
from vireid.schemas.audit import AuditEntry, AuditPage, AuditVerification
from vireid.schemas.calibrations import CalibrationDetails, CalibrationsList
from vireid.schemas.compare import Comparison
from vireid.schemas.duplicates import DuplicatePair, DuplicatesPage
from vireid.schemas.erasures import DeletionResult, Receipt, ReceiptsPage
from vireid.schemas.filters import Filter
from vireid.schemas.galleries import GalleriesPage, GalleryDetails, VectorType
from vireid.schemas.health import Readiness
from vireid.schemas.items import ItemDetails, ItemFields, ItemsPage, WriteResult, WriteResults
from vireid.schemas.jobs import JobFailure, JobFailuresPage, JobsPage, JobState, JobStatus
from vireid.schemas.keys import KeyDetails, KeysPage, KeyWithSecret, Scope
from vireid.schemas.limits import Limits
from vireid.schemas.models import ModelsList
from vireid.schemas.problems import Problem
from vireid.schemas.retention import RetentionStatus
from vireid.schemas.search import SearchAnswer, SearchAnswers, SearchHit, SearchOutcome
from vireid.schemas.summary import GallerySummary

__all__ = ["Client"]

_NPY = "application/x-npy"
_MAX_VECTORS = 10_000  # of a request
_ITEM_ERRORS = {413, 415, 422}
_RECONNECT_S = 1.0


class Client:
    """A connection to a vireid server. Threads may share one.

    ``key`` is an API key, for servers that require one. ``case_reference`` and ``reason`` go into the audit log with
    each request. ``timeout`` is the longest time without a byte from the server,
    in seconds. A request is sent again, at most ``retries`` times, where the server is too busy (429), and where it is
    unavailable (502, 503, 504) or the connection drops, unless that could create or delete something twice.
    The wait is that of ``Retry-After``, or doubles from one second. ``transport`` and ``sleep`` are replaced by tests.

    Every method may raise :class:`ApiError` (the server refused or failed), :class:`Unreachable` (no response),
    :class:`UnexpectedAnswer` (another server or version), :class:`InvalidRequest` (wrong arguments, nothing was sent),
    and ``OSError`` where an image is given by its path.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        case_reference: str | None = None,
        reason: str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url
        self._retries, self._sleep = retries, sleep
        headers = {
            "Authorization": f"Bearer {key.strip()}" if key else None,
            "X-Case-Reference": case_reference,
            "X-Reason": reason,
        }
        self._http = Transport(base_url, headers, timeout=timeout, retries=retries, transport=transport, sleep=sleep)
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
        """Return the state of the server. Where it is not ready, :class:`ApiError` has status 503 and the reasons."""
        return self._http.request(Readiness, "GET", "/readyz", repeatable=False)  # 503 is an answer here

    def limits(self) -> Limits:
        """Return the limits of the server; they are requested once."""
        if self._limits is None:
            self._limits = self._http.request(Limits, "GET", "/v1/limits")
        return self._limits

    def models(self) -> ModelsList:
        """Return the cards of the loaded models and the name of the default model."""
        return self._http.request(ModelsList, "GET", "/v1/models")

    def model(self, name: str) -> Card:
        """Return the card of a loaded model."""
        return self._http.request(Card, "GET", resource_path("models", name))

    def metrics(self) -> str:
        """Return the metrics of the server in the text format of Prometheus."""
        return self._http.send("GET", "/metrics").text

    # Embeddings

    def embed(
        self,
        images: Iterable[Image],
        modality: AnyModality = "auto",
        model: str | None = None,
        *,
        progress: Progress | None = None,
    ) -> Vectors:
        """Embed images in as many requests as necessary; return float32 ``[N, D]``, rows of unit length.

        ``progress`` is called after each request with the number of images that are done.

        Raises:
            ApiError: an image is invalid; ``by_position`` has its position and the reason.
            InvalidRequest: there is no image.
        """
        limits = self.limits()
        parts: list[Vectors] = []
        done = 0
        for batch in batches(limits, map(image_content, images), len, limits.max_images):
            form = form_fields(modality=modality, model=model)
            try:
                answer = self._http.send(
                    "POST",
                    "/v1/embeddings",
                    repeatable=True,
                    data=form,
                    files=image_files(batch),
                    headers={"Accept": _NPY},
                )
            except ApiError as error:
                raise error.shifted(done) from None
            parts.append(np.load(io.BytesIO(answer.content), allow_pickle=False))
            done += len(batch)
            if progress is not None:
                progress(done)
        if not parts:
            raise InvalidRequest("expected at least one image, found none")
        return np.concatenate(parts)

    def compare(
        self, first: Image, second: Image, modality: AnyModality = "auto", model: str | None = None
    ) -> Comparison:
        """Return the score of two crops and its false match rate."""
        files = image_files([image_content(first), image_content(second)])
        form = form_fields(modality=modality, model=model)
        return self._http.request(Comparison, "POST", "/v1/compare", repeatable=True, data=form, files=files)

    # Galleries

    def create_gallery(
        self,
        name: str,
        *,
        model: str | None = None,
        retention_days: int | None = None,
        description: str | None = None,
        vector_type: VectorType | Literal["float32", "float16"] = "float32",
        thumbnails: bool = True,
    ) -> GalleryDetails:
        """Create a gallery for embeddings of a model; without ``model``, of the server's default."""
        body = {
            "name": name,
            "model": model,
            "retention_days": retention_days,
            "description": description,
            "vector_type": vector_type,
            "thumbnails": thumbnails,
        }
        return self._http.request(GalleryDetails, "POST", "/v1/galleries", json=body)

    def galleries(self) -> Iterator[GalleryDetails]:
        """Iterate over the galleries that the key may use, by name, fetching page by page."""
        pages = self._http.pages(GalleriesPage, "/v1/galleries", {"limit": self.limits().max_page})
        return chain.from_iterable(page.galleries for page in pages)

    def gallery(self, name: str) -> GalleryDetails:
        """Return a gallery."""
        return self._http.request(GalleryDetails, "GET", resource_path("galleries", name))

    def summary(self, gallery: str) -> GallerySummary:
        """Return what a gallery holds, counted by modality, camera and other fields."""
        return self._http.request(GallerySummary, "GET", resource_path("galleries", gallery, "summary"))

    def update_gallery(self, name: str, **changes: Unpack[GalleryUpdate]) -> GalleryDetails:
        """Change the retention or the description of a gallery."""
        return self._http.request(
            GalleryDetails, "PATCH", resource_path("galleries", name), repeatable=True, json=changes
        )

    def delete_gallery(self, name: str) -> None:
        """Delete a gallery with all its items, permanently."""
        self._http.send("DELETE", resource_path("galleries", name))

    def aliases(self) -> dict[str, str]:
        """Return the gallery of each alias."""
        aliases = self._http.request(AliasesList, "GET", "/v1/aliases").aliases
        return {alias.alias: alias.gallery for alias in aliases}

    def set_alias(self, alias: str, gallery: str) -> None:
        """Make ``alias`` name a gallery, even if it named another before."""
        self._http.request(Alias, "PUT", resource_path("aliases", alias), json={"gallery": gallery})

    def remove_alias(self, alias: str) -> None:
        """Remove an alias; the gallery stays."""
        self._http.send("DELETE", resource_path("aliases", alias))

    # Items

    def add_items(
        self, gallery: str, items: Iterable[tuple[Image, ItemFields]], *, progress: Progress | None = None
    ) -> list[WriteResult]:
        """Add crops in as many requests as necessary; return the result of each, in the order given.

        ``progress`` is called after each request with the number of items that are done.

        An invalid image is a failed result and does not affect the others. An :class:`ApiError` concerns a whole
        request; the items of the requests before it are stored. An item with the same id is replaced, so a call that
        failed may be repeated.
        """
        limits = self.limits()
        path = resource_path("galleries", gallery, "items")
        entries = ((image_content(image), fields.model_dump_json()) for image, fields in items)
        written: list[WriteResult] = []
        for batch in batches(limits, entries, lambda entry: len(entry[0]) + len(entry[1].encode()), limits.max_images):
            form = {"items": f"[{','.join(fields for _, fields in batch)}]"}
            files = image_files([content for content, _ in batch])
            written += self._write(len(batch), len(written), path, data=form, files=files)
            if progress is not None:
                progress(len(written))
        return written

    def add_vectors(
        self,
        gallery: str,
        items: Iterable[tuple[Vectors, ItemFields]],
        *,
        fingerprint: str | None = None,
        progress: Progress | None = None,
    ) -> list[WriteResult]:
        """Add precomputed embeddings of the gallery's model: float32 ``[D]`` of unit length, with their modality.

        If ``fingerprint`` is given, the server checks that it is that of the gallery's model. Results are as those of
        :meth:`add_items`.
        """
        path = resource_path("galleries", gallery, "vectors")
        params = {} if fingerprint is None else {"fingerprint": fingerprint}
        headers = {"Content-Type": IMPORT_TYPES["ndjson"]}
        lines = (json.dumps({**fields.model_dump(mode="json"), "vector": vector.tolist()}) for vector, fields in items)
        written: list[WriteResult] = []
        for batch in batches(self.limits(), lines, len, _MAX_VECTORS):
            body = "\n".join(batch)
            written += self._write(len(batch), len(written), path, content=body, headers=headers, params=params)
            if progress is not None:
                progress(len(written))
        return written

    def items(self, gallery: str, where: Filter | None = None) -> Iterator[ItemDetails]:
        """Iterate over the items that pass the filter, by id, fetching page by page."""
        params = filter_params(where) | {"limit": self.limits().max_page}
        pages = self._http.pages(ItemsPage, resource_path("galleries", gallery, "items"), params)
        return chain.from_iterable(page.items for page in pages)

    def count_items(self, gallery: str, where: Filter | None = None) -> int:
        """Return the number of items that pass the filter."""
        params = filter_params(where) | {"limit": 1, "count": True}
        total = self._http.request(ItemsPage, "GET", resource_path("galleries", gallery, "items"), params=params).total
        if total is None:
            raise UnexpectedAnswer("the server does not count items: it is of an earlier version")
        return total

    def item(self, gallery: str, item: str) -> ItemDetails:
        """Return an item."""
        return self._http.request(ItemDetails, "GET", resource_path("galleries", gallery, "items", item))

    def update_item(self, gallery: str, item: str, **changes: Unpack[ItemUpdate]) -> ItemDetails:
        """Change the metadata of an item; its thumbnail and embedding stay.

        Raises:
            InvalidRequest: a value is invalid, or ``captured_at`` has no time zone.
        """
        path = resource_path("galleries", gallery, "items", item)
        return self._http.request(ItemDetails, "PATCH", path, repeatable=True, json=changes_body(changes))

    def duplicates(
        self, gallery: str, where: Filter | None = None, *, min_score: float = 0.98
    ) -> Iterator[DuplicatePair]:
        """Iterate over the pairs of items that pass and have at least ``min_score``, each once, as they were stored.

        Every item is compared with every other: a part of them with each page that is fetched.
        """
        params = filter_params(where) | {"min_score": min_score, "limit": self.limits().max_page}
        pages = self._http.pages(DuplicatesPage, resource_path("galleries", gallery, "duplicates"), params)
        return chain.from_iterable(page.pairs for page in pages)

    def delete_item(self, gallery: str, item: str) -> None:
        """Delete an item with its embedding and thumbnail, permanently."""
        self._http.send("DELETE", resource_path("galleries", gallery, "items", item))

    def erase(self, gallery: str, where: Filter) -> Receipt:
        """Delete every item that passes the filter, permanently; an empty filter is refused."""
        path = resource_path("galleries", gallery, "items")
        return self._http.request(DeletionResult, "DELETE", path, params=filter_params(where)).receipt

    def receipts(self) -> Iterator[Receipt]:
        """Iterate over the receipts of erasures that the key may see, newest first."""
        pages = self._http.pages(ReceiptsPage, "/v1/erasures", {"limit": self.limits().max_page})
        return chain.from_iterable(page.receipts for page in pages)

    def receipt(self, id: str) -> Receipt:
        """Return the receipt of an erasure."""
        return self._http.request(Receipt, "GET", resource_path("erasures", id))

    def image(self, gallery: str, item: str) -> bytes:
        """Return the thumbnail of an item: a JPEG file, or WebP if an earlier version stored it."""
        return self._http.send("GET", resource_path("galleries", gallery, "items", item, "image")).content

    # Search

    def search(
        self,
        gallery: str,
        images: Sequence[Image] = (),
        *,
        item_id: str | None = None,
        vector: Vectors | None = None,
        modality: AnyModality = "auto",
        **options: Unpack[SearchOptions],
    ) -> SearchAnswer:
        """Rank a gallery for one person: by images of the person, by an item of the gallery, or by a unit vector.

        ``modality`` is that of the images or of the vector. :meth:`hits` follows ``next_cursor`` through all pages.

        Raises:
            InvalidRequest: not exactly one of ``images``, ``item_id`` and ``vector`` is given, or an option is invalid.
        """
        if bool(images) + (item_id is not None) + (vector is not None) != 1:
            raise InvalidRequest("expected exactly one of images, item_id and vector")
        path, query = resource_path("galleries", gallery, "search"), query_body(options)
        if images:
            form = form_fields(modality=modality, query=json.dumps(query))
            return self._http.request(
                SearchAnswer, "POST", path, repeatable=True, data=form, files=image_files(map(image_content, images))
            )
        source = {"item_id": item_id} if vector is None else {"vector": vector.tolist(), "modality": modality}
        return self._http.request(SearchAnswer, "POST", path, repeatable=True, json={"query": query, **source})

    def hits(
        self,
        gallery: str,
        images: Sequence[Image] = (),
        *,
        item_id: str | None = None,
        vector: Vectors | None = None,
        modality: AnyModality = "auto",
        **options: Unpack[SearchOptions],
    ) -> Iterator[SearchHit]:
        """Iterate over all hits of a search, best first, fetching pages of ``k``. Arguments as :meth:`search`."""
        contents = [image_content(image) for image in images]  # read once: a file may change between pages
        if not (options.get("group_by") or options.get("rerank")):  # these have no pages
            options["paginate"] = True
        while True:
            answer = self.search(gallery, contents, item_id=item_id, vector=vector, modality=modality, **options)
            yield from answer.hits
            if answer.next_cursor is None:
                return
            options["cursor"] = answer.next_cursor

    def search_many(self, gallery: str, searches: Iterable[StoredSearch]) -> list[SearchOutcome]:
        """Run searches by items or vectors in as many requests as necessary; return outcomes in the order given.

        Far faster than one by one where the filters are equal. An invalid search does not affect the others.

        Raises:
            InvalidRequest: an option is invalid.
        """
        limits = self.limits()
        path = resource_path("galleries", gallery, "searches")
        found: list[SearchOutcome] = []
        for batch in batches(limits, map(stored_search_body, searches), len, limits.max_searches):
            body, headers = f'{{"searches": [{",".join(batch)}]}}', {"Content-Type": "application/json"}
            answers = self._http.request(
                SearchAnswers, "POST", path, repeatable=True, content=body, headers=headers
            ).answers
            found += [answer.model_copy(update={"index": len(found) + answer.index}) for answer in answers]
        return found

    # Imports and jobs

    def import_file(
        self,
        gallery: str,
        file: Path | Iterable[bytes],
        kind: ImportKind | None = None,
        *,
        modality: AnyModality = "auto",
        pattern: str | None = None,
        fingerprint: str | None = None,
        on_conflict: AnyConflict = "fail",
        timezone: str | None = None,
    ) -> JobStatus:
        """Upload an archive of crops, or precomputed embeddings, in constant memory; return the job that imports it.

        ``kind`` follows from the suffix of a path. ``pattern`` is an RE2 expression, searched for in each crop's path;
        its named groups (identity, camera, captured_at, id, modality) become fields of the item. ``fingerprint`` is
        that of the model that made the embeddings. Items that are stored already are skipped, so an upload that failed
        may be repeated.

        ``on_conflict`` says what becomes of an entry whose id belongs to other content: ``fail`` stops the job there,
        ``keep`` stores both, ``replace`` overwrites. ``timezone`` (an IANA name or an offset) is that of times that
        state none; without it they are refused.

        Raises:
            InvalidRequest: the kind is neither given nor known from the suffix.
        """
        path = resource_path("galleries", gallery, "imports")
        if isinstance(file, Path):
            kind = kind or import_kind(file)
        if kind is None:
            raise InvalidRequest("expected the kind of the imported file, found none")
        params = form_fields(
            modality=modality, pattern=pattern, fingerprint=fingerprint, on_conflict=on_conflict, timezone=timezone
        )
        headers = {"Content-Type": IMPORT_TYPES[kind]}
        if isinstance(file, Path):
            with file.open("rb") as body:
                return self._http.upload(JobStatus, path, body, params=params, headers=headers)
        return self._http.upload(JobStatus, path, file, params=params, headers=headers)

    def import_directory(
        self,
        gallery: str,
        directory: str,
        *,
        modality: AnyModality = "auto",
        pattern: str | None = None,
        on_conflict: AnyConflict = "fail",
        timezone: str | None = None,
        follow_links: bool = False,
    ) -> JobStatus:
        """Import a folder of the server's machine, below one of its import roots. Options as :meth:`import_file`.

        ``follow_links`` also reads linked files and folders that are below an import root.
        """
        path = resource_path("galleries", gallery, "imports")
        body = {"directory": directory, "pattern": pattern, "follow_links": follow_links}
        params = form_fields(modality=modality, on_conflict=on_conflict, timezone=timezone)
        return self._http.request(JobStatus, "POST", path, params=params, json=body)

    def jobs(self, state: JobState | None = None) -> Iterator[JobStatus]:
        """Iterate over the jobs that the key may see, newest first, fetching page by page."""
        params = {"limit": self.limits().max_page, **form_fields(state=state)}
        return chain.from_iterable(page.jobs for page in self._http.pages(JobsPage, "/v1/jobs", params))

    def job(self, job: str) -> JobStatus:
        """Return a job."""
        return self._http.request(JobStatus, "GET", resource_path("jobs", job))

    def watch(self, job: str) -> Iterator[JobStatus]:
        """Yield the job now and after each change until it has ended; reconnect to a server that restarts."""
        tries = 0
        while True:
            try:
                for job_status in self._http.events(JobStatus, resource_path("jobs", job, "events")):
                    tries = 0
                    yield job_status
                    if job_status.ended:
                        return
                lost = Unreachable(f"{self.base_url} closed the connection before {job} ended")
            except Unreachable as error:
                lost = error
            if tries >= self._retries:
                raise lost
            tries += 1
            self._sleep(_RECONNECT_S)

    def wait(self, job: str, progress: Callable[[JobStatus], object] | None = None) -> JobStatus:
        """Wait until a job has succeeded, and return it; ``progress`` is called with each status, as of :meth:`watch`.

        Raises:
            JobFailed: the job has failed or was cancelled.
        """
        last: JobStatus | None = None
        for last in self.watch(job):
            if progress is not None:
                progress(last)
        if last is None or last.state != JobState.SUCCEEDED:
            raise JobFailed(last or self.job(job))
        return last

    def cancel_job(self, job: str) -> JobStatus:
        """Cancel a job; what it has done stays."""
        return self._http.request(JobStatus, "POST", resource_path("jobs", job, "cancel"))

    def job_failures(self, job: str) -> Iterator[JobFailure]:
        """Iterate over the failed entries of a job with their reasons, fetching page by page."""
        pages = self._http.pages(
            JobFailuresPage, resource_path("jobs", job, "failures"), {"limit": self.limits().max_page}
        )
        return chain.from_iterable(page.failures for page in pages)

    # Archives and re-embedding

    def snapshot(self, gallery: str) -> Iterator[bytes]:
        """Yield a gallery with all its items as one tar file, block by block; requires the scope ``admin``.

        If the download breaks off, :class:`Unreachable` is raised and the file cannot be restored.
        """
        return self._http.download(resource_path("galleries", gallery, "snapshot"))

    def restore(self, gallery: str, file: Path | Iterable[bytes]) -> JobStatus:
        """Create a gallery from a snapshot; it appears when the job has succeeded."""
        path, headers = resource_path("galleries", gallery, "restore"), {"Content-Type": IMPORT_TYPES["tar"]}
        if isinstance(file, Path):
            with file.open("rb") as body:
                return self._http.upload(JobStatus, path, body, headers=headers)
        return self._http.upload(JobStatus, path, file, headers=headers)

    def reembed(self, gallery: str, model: str) -> JobStatus:
        """Embed every item with another model, from its thumbnail; searches switch to it all at once, at the end."""
        return self._http.request(
            JobStatus, "POST", resource_path("galleries", gallery, "reembed"), json={"model": model}
        )

    def calibrate(
        self, gallery: str, *, disjoint_cameras: Sequence[Sequence[str]] = (), simultaneous: bool = False
    ) -> JobStatus:
        """Measure false match rates on the gallery's own items; searches use them from then on.

        Pairs of different people are items with different identities; without labels those of ``disjoint_cameras``
        (lists of cameras of which no person passes two) or, with ``simultaneous``, of one camera at the same time.
        """
        body = {"disjoint_cameras": [list(cameras) for cameras in disjoint_cameras], "simultaneous": simultaneous}
        return self._http.request(JobStatus, "POST", resource_path("galleries", gallery, "calibrations"), json=body)

    def calibrations(self, gallery: str) -> Sequence[CalibrationDetails]:
        """Return the calibrations measured on a gallery, the newest first."""
        path = resource_path("galleries", gallery, "calibrations")
        return self._http.request(CalibrationsList, "GET", path).calibrations

    # Keys

    def api_keys(self) -> Iterator[KeyDetails]:
        """Iterate over the API keys, without their secrets."""
        pages = self._http.pages(KeysPage, "/v1/keys", {"limit": self.limits().max_page})
        return chain.from_iterable(page.keys for page in pages)

    def create_key(
        self,
        name: str,
        scopes: Sequence[Scope],
        galleries: Sequence[str] | None = None,
        *,
        expires_at: datetime | None = None,
        requests_per_minute: int | None = None,
    ) -> KeyWithSecret:
        """Create an API key, for all galleries unless some are given. Only this response contains its secret."""
        body: dict[str, object] = {"name": name, "scopes": scopes, "galleries": galleries}
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat()
        if requests_per_minute is not None:
            body["limits"] = {"requests_per_minute": requests_per_minute}
        return self._http.request(KeyWithSecret, "POST", "/v1/keys", json=body)

    def rotate_key(self, key_id: str, *, overlap_s: int = 86_400, expires_at: datetime | None = None) -> KeyWithSecret:
        """Give an API key a new secret, which only this response contains; the old one works for ``overlap_s`` more."""
        body = {"overlap_s": overlap_s, "expires_at": expires_at and expires_at.isoformat()}
        return self._http.request(KeyWithSecret, "POST", resource_path("keys", key_id, "rotate"), json=body)

    def delete_key(self, key_id: str) -> None:
        """Delete an API key; the server refuses it from now on."""
        self._http.send("DELETE", resource_path("keys", key_id))

    # Audit log

    def audit(self) -> Iterator[AuditEntry]:
        """Iterate over the entries of the audit log, newest first, fetching page by page."""
        pages = self._http.pages(AuditPage, "/v1/audit", {"limit": self.limits().max_page})
        return chain.from_iterable(page.entries for page in pages)

    def verify_audit(self, number: int | None = None, digest: str | None = None) -> AuditVerification:
        """Verify the hash chain of the audit log, and that it holds an entry that was noted earlier."""
        params = {} if number is None else {"number": number, "digest": digest}
        return self._http.request(AuditVerification, "GET", "/v1/audit/verify", params=params)

    def retention(self) -> RetentionStatus:
        """Return whether retention is stopped because the server's clock has jumped."""
        return self._http.request(RetentionStatus, "GET", "/v1/retention")

    def confirm_clock(self) -> RetentionStatus:
        """Confirm that the server's clock is right, so that retention runs again."""
        return self._http.request(RetentionStatus, "POST", "/v1/retention/confirm")

    def _write(self, count: int, done: int, path: str, **content: Any) -> list[WriteResult]:
        """Send ``count`` items; positions in the results and errors start at ``done``."""
        headers = content.pop("headers", {}) | {"Idempotency-Key": str(uuid4())}  # so that none is stored twice
        try:
            results = self._http.request(WriteResults, "POST", path, repeatable=True, headers=headers, **content).items
        except ApiError as error:
            reasons = error.by_position
            if error.status not in _ITEM_ERRORS or reasons.keys() != set(range(count)):
                raise error.shifted(done) from None
            results = tuple(_failed(index, error.problem, reasons[index]) for index in range(count))
        return [result.model_copy(update={"index": done + result.index}) for result in results]


def _failed(index: int, problem: Problem, reason: str) -> WriteResult:
    """Return the result of one item of a request in which every item failed; the server answers that as an error."""
    own = Problem(status=problem.status, type=problem.type, title=problem.title, detail=reason)
    return WriteResult(index=index, id=None, status="failed", error=own)
