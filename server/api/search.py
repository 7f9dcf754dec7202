"""Search a gallery for one person, or for many people at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, Self

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from models.card import Card, Modality
from server.api.auth import Caller, Searcher
from server.api.bodies import FORM, JSON, documented, media_type, read_form, read_json
from server.api.bound import NamedGallery, engine_of
from server.api.calibration import rate_of, score_for
from server.api.errors import BodyTypeUnsupported, InvalidRequest, describe, field_errors, invalid, problems
from server.api.rankings import Cursor, digest_of
from server.api.schemas import (
    MAX_QUERY_IMAGES,
    ItemFacts,
    SearchAnswer,
    SearchAnswers,
    SearchBatch,
    SearchByStored,
    SearchForm,
    SearchGroup,
    SearchHit,
    SearchOutcome,
    SearchQuery,
    TimingMs,
)
from server.api.service import Service, ServiceDep
from server.api.trace import Trace, trace_of
from server.api.uploads import check_count, embed_all
from server.embedding.engine import Detail
from server.errors import ModelMismatch, ServiceError
from server.fields import unit_vector
from server.gallery.search import fuse
from server.gallery.types import CropWarning, Gallery, Group, Hit, Place, Rerank, Search, SearchResult, Vectors

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["search"])


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to look for: unit vectors ``[q, D]`` of one person, the modality of each, what to tell the audit.

    ``key`` stays the same from page to page. ``exclude`` is the item that the vectors come from, which would find
    itself. ``warnings`` are those of each image, where they were looked at.
    """

    vectors: Vectors
    modalities: tuple[Modality, ...]
    source: Mapping[str, object]
    key: bytes
    exclude: str | None = None
    warnings: tuple[frozenset[CropWarning], ...] = ()

    @property
    def modality(self) -> Modality | None:
        """The one modality of all; None when they differ."""
        return self.modalities[0] if len(set(self.modalities)) == 1 else None


@dataclass(frozen=True, slots=True)
class Task:
    """A search translated, and what it takes to translate its result back."""

    gallery: Gallery
    card: Card | None
    query: SearchQuery
    person: Person
    search: Search

    @classmethod
    def of(cls, service: Service, gallery: Gallery, query: SearchQuery, person: Person) -> Self:
        """Translate.

        Raises:
            InvalidRequest: the query does not go with the person, the gallery's model or its cursor.
        """
        engine = service.models.of_fingerprint(gallery.fingerprint)
        card = None if engine is None else engine.card
        modality = _wanted(query.filter.modality, person)
        cursor = Cursor.read(query.cursor, digest_of(gallery, query, person.key))
        search = Search(
            _fused(query, person),
            k=query.k,
            where=query.filter.where(modality),
            fusion=query.fusion,
            group=query.group_by is not None,
            min_score=_least_score(card, query, modality, person),
            exclude=person.exclude,
            after=None if cursor is None else cursor.place,
            rerank=None if query.rerank is None else Rerank(**query.rerank.model_dump()),
            exact=query.exact,
        )
        return cls(gallery, card, query, person, search)

    @property
    def passed(self) -> int:
        """Hits of the pages before."""
        return 0 if self.search.after is None else self.search.after.rank

    def audited(self, result: SearchResult) -> dict[str, object]:
        """What the audit keeps; no vector, which a cursor may hold."""
        asked = self.query.model_dump(mode="json", exclude_defaults=True, exclude={"cursor"})
        after = {"after": self.passed} if self.passed else {}
        return {**self.person.source, **asked, **after, "hits": len(result.hits)}

    def answer(self, result: SearchResult, timing: TimingMs) -> SearchAnswer:
        """Translate back."""
        return SearchAnswer(
            gallery=self.gallery.name,
            model=self.gallery.model,
            fingerprint=self.gallery.fingerprint,
            modality=list(self.person.modalities),
            warnings=[sorted(found) for found in self.person.warnings],
            searched=result.searched,
            exact=result.recall is None,
            recall=result.recall,
            reranked=self.search.rerank is not None,
            hits=self._hits(result.hits, self.passed + 1),
            groups=None if result.groups is None else [self._group(group) for group in result.groups],
            next_cursor=None if result.end is None else self._cursor(result.end),
            timing_ms=timing,
        )

    def _hits(self, hits: tuple[Hit, ...], first: int = 1) -> list[SearchHit]:
        return [
            SearchHit(
                rank=rank,
                score=hit.score,
                false_match_rate=self.card and rate_of(self.card, self.person.modality, hit.item.modality, hit.score),
                rerank_distance=hit.rerank_distance,
                item=ItemFacts.of(hit.item),
            )
            for rank, hit in enumerate(hits, first)
        ]

    def _group(self, group: Group) -> SearchGroup:
        return SearchGroup(identity=group.identity, score=group.score, hits=self._hits(group.hits))

    def _cursor(self, end: Place) -> str:
        seen = "images" in self.person.source
        return Cursor(
            search=digest_of(self.gallery, self.query, self.person.key),
            score=end.score,
            id=end.id,
            rank=end.rank,
            modalities=list(self.person.modalities) if seen else [],
            vectors=Cursor.packed(self.search.queries) if seen else None,
        ).write()


@router.post(
    "/search",
    response_model=SearchAnswer,
    responses=problems(404, 409, 413, 415, 429, 503),
    openapi_extra=documented({FORM: SearchForm, JSON: SearchByStored}),
)
async def search(request: Request, gallery: NamedGallery, service: ServiceDep, caller: Searcher) -> Response:
    """Rank the gallery for one person, seen in images, stored as an item, or given as an embedding.

    For the next page send the same again, with the answer's `next_cursor` as `cursor`.
    """
    bound, trace = service.galleries.bound(gallery), trace_of(request)
    kind = media_type(request)
    if kind == FORM:
        query, person = await _from_images(request, service, bound)
        return await run_in_threadpool(_answer, service, caller, trace, bound, query, person)
    if kind == JSON:
        body = await read_json(request, SearchByStored)
        return await run_in_threadpool(_answer_stored, service, caller, trace, bound, body)
    raise BodyTypeUnsupported([FORM, JSON])


@router.post(
    "/searches",
    response_model=SearchAnswers,
    responses=problems(404, 413, 503),
    openapi_extra=documented({JSON: SearchBatch}),
)
async def search_many(request: Request, gallery: NamedGallery, service: ServiceDep, caller: Searcher) -> Response:
    """Many searches at once, each by an item or an embedding; one that is not possible fails alone.

    Those with the same filter share one pass over the gallery, which takes far less time than one each.
    """
    if media_type(request) != JSON:
        raise BodyTypeUnsupported([JSON])
    body = await read_json(request, SearchBatch)
    return await run_in_threadpool(_answer_many, service, caller, trace_of(request), gallery, body.searches)


def _answer(
    service: Service, caller: Caller, trace: Trace, gallery: Gallery, query: SearchQuery, person: Person
) -> Response:
    task = Task.of(service, gallery, query, person)
    (result,) = _results(service, trace, gallery, [task])
    service.audit.record(caller.key_id, "search", gallery.name, task.audited(result))
    return _json(task.answer(result, trace.timing()))


def _answer_stored(service: Service, caller: Caller, trace: Trace, gallery: Gallery, body: SearchByStored) -> Response:
    return _answer(service, caller, trace, gallery, body.query, _from_stored(service, gallery, body))


def _answer_many(service: Service, caller: Caller, trace: Trace, name: str, entries: Sequence[object]) -> Response:
    gallery = service.galleries.bound(name)
    tasks: dict[int, Task] = {}
    outcomes: dict[int, SearchOutcome] = {}
    for index, entry in enumerate(entries):
        try:
            body = _parsed(entry)
            tasks[index] = Task.of(service, gallery, body.query, _from_stored(service, gallery, body))
        except ServiceError as error:
            outcomes[index] = SearchOutcome(index=index, error=describe(error))
    results = _results(service, trace, gallery, list(tasks.values()))
    audited = [task.audited(result) for task, result in zip(tasks.values(), results, strict=True)]
    service.audit.record(caller.key_id, "search", gallery.name, {"searches": audited, "failed": len(outcomes)})
    timing = trace.timing()
    for (index, task), result in zip(tasks.items(), results, strict=True):
        outcomes[index] = SearchOutcome(index=index, answer=task.answer(result, timing))
    return _json(SearchAnswers(answers=[outcomes[index] for index in range(len(entries))]))


def _json(answer: SearchAnswer | SearchAnswers) -> Response:
    """Written by the thread that has made it: FastAPI would check it once more, in everybody's event loop."""
    return Response(answer.model_dump_json(), media_type=JSON)


def _results(service: Service, trace: Trace, gallery: Gallery, tasks: Sequence[Task]) -> list[SearchResult]:
    started = time.monotonic()
    searches = [task.search for task in tasks]
    results = service.galleries.search(gallery.name, searches, fingerprint=gallery.fingerprint)
    trace.seconds["search"] = time.monotonic() - started
    return results


def _parsed(entry: object) -> SearchByStored:
    try:
        return SearchByStored.model_validate(entry)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors())) from None


async def _from_images(request: Request, service: Service, gallery: Gallery) -> tuple[SearchQuery, Person]:
    body = await read_form(request, SearchForm)
    count = len(body.images)
    check_count(body.images, min(MAX_QUERY_IMAGES, service.settings.max_images))
    engine, query = engine_of(service, gallery), body.query
    key = _key_of(body)
    cursor = Cursor.read(query.cursor, digest_of(gallery, query, key))
    if cursor is not None:
        return query, Person(cursor.queries(gallery.dimension), tuple(cursor.modalities), {"images": count}, key)
    with service.admission.admit(count):
        found = await embed_all(request, engine, body.images, body.modality, details={Detail.WARNINGS})
    vectors, modalities = np.stack([row.vector for row in found]), tuple(row.modality for row in found)
    warnings = tuple(row.warnings for row in found)
    return query, Person(vectors, modalities, {"images": count}, key, warnings=warnings)


def _key_of(body: SearchForm) -> bytes:
    """The images and their modalities in few bytes."""
    key = sha256(",".join(body.modality).encode())
    for image in body.images:
        key.update(sha256(image).digest())
    return key.digest()


def _from_stored(service: Service, gallery: Gallery, body: SearchByStored) -> Person:
    if body.item_id is not None:
        item, vector = service.galleries.vector(gallery.name, body.item_id)
        key = item.id.encode() + vector.tobytes()
        return Person(vector.reshape(1, -1), (item.modality,), {"item_id": item.id}, key, exclude=item.id)
    if body.vector is None or body.modality is None:
        raise TypeError("the schema lets no such body pass")
    if body.fingerprint not in (None, gallery.fingerprint):
        raise ModelMismatch(gallery.name, gallery.fingerprint, body.fingerprint)
    if len(body.vector) != gallery.dimension:
        raise ModelMismatch(gallery.name, f"{gallery.dimension} numbers", f"{len(body.vector)}")
    vector = unit_vector(body.vector)
    return Person(vector[np.newaxis], (body.modality,), {"vector": True}, body.modality.encode() + vector.tobytes())


def _fused(query: SearchQuery, person: Person) -> Vectors:
    try:
        return fuse(person.vectors, query.fusion)
    except ValueError:
        raise invalid("images", "have no mean: their embeddings cancel out") from None


def _wanted(asked: Literal["visible", "infrared", "opposite"] | None, person: Person) -> Modality | None:
    """The modality of the items that may be found; None: both."""
    if asked is None:
        return None
    if asked != "opposite":
        return Modality(asked)
    if person.modality is None:
        raise invalid("query.filter.modality", "cannot be opposite: the query images differ in modality")
    return person.modality.opposite


def _least_score(card: Card | None, query: SearchQuery, modality: Modality | None, person: Person) -> float | None:
    """``min_score``, or the score that ``max_false_match_rate`` stands for, whichever is more."""
    rate = query.max_false_match_rate
    if rate is None:
        return query.min_score
    field = "query.max_false_match_rate"
    if modality is None or person.modality is None:
        raise invalid(field, "needs query images of one modality and a filter on one modality")
    if card is None:
        raise invalid(field, "needs the calibration of the gallery's model, which is not loaded")
    score = score_for(card, person.modality, modality, rate)
    return score if query.min_score is None else max(score, query.min_score)
