"""Search of a gallery for one person or for many people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import chain
from typing import Self

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from models.card import Modality
from server.api.app_state import AppState, StateDep
from server.api.auth import Caller, Searcher
from server.api.calibration import Calibrations, FittingCalibration, is_drawn, score_for, score_for_false_hits
from server.api.case_reference import require_case
from server.api.conversion import from_filter, to_item_summary
from server.api.dependencies import ResolvedGallery, engine_of
from server.api.errors import BodyTypeUnsupported, describe, problems
from server.api.request_parsing import FORM, JSON, media_type, read_form, read_json, request_body
from server.api.search_cursor import QueryVectors, digest_of, read_cursor, write_cursor
from server.api.trace import Trace, trace_of
from server.api.uploads import check_count, embed_all
from server.domain.errors import ItemNotFound, ModelMismatch, ServiceError
from server.domain.fields import unit_vector
from server.domain.types import (
    CropWarning,
    Filter,
    Fusion,
    Gallery,
    Group,
    Hit,
    RankingPosition,
    Rerank,
    Search,
    SearchResult,
    Vectors,
)
from server.domain.validation import InvalidRequest, field_errors, invalid
from server.embedding.engine import Detail
from server.gallery.feedback import reweight
from server.index.protocol import inner_products
from server.index.ranking import fuse
from vireid.schemas.search import (
    MAX_QUERY_IMAGES,
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

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["search"])


@dataclass(frozen=True, slots=True)
class Person:
    """The person to search for: fused unit vectors ``[q, D]``, the modality of each image, details for the audit log.

    ``key`` is equal for all pages of a search. ``exclude`` is the item that the vectors come from, which would find
    itself. ``warnings`` holds those of each image that was processed.
    """

    vectors: Vectors
    modalities: tuple[Modality, ...]
    source: Mapping[str, object]
    key: bytes
    exclude: str | None = None
    warnings: tuple[frozenset[CropWarning], ...] = ()

    @property
    def modality(self) -> Modality | None:
        """The modality of all images; None if they differ."""
        return self.modalities[0] if len(set(self.modalities)) == 1 else None


@dataclass(frozen=True, slots=True)
class SearchTask:
    """A search in terms of the domain, with what is needed to convert its result to an answer."""

    gallery: Gallery
    calibrations: Calibrations
    query: SearchQuery
    person: Person
    search: Search

    @classmethod
    def of(
        cls, state: AppState, gallery: Gallery, query: SearchQuery, person: Person, after: RankingPosition | None
    ) -> Self:
        """Convert a query.

        Raises:
            InvalidRequest: the query does not fit the person or the gallery's model.
        """
        calibrations = _calibrations(state, gallery, query)
        where = from_filter(query.filter, person.modality, field="query.filter.modality")
        search = Search(
            _reweighted(state, gallery, query, person.vectors),
            k=query.k,
            where=where,
            group=query.group_by is not None,
            min_score=_least_score(state, gallery, calibrations, query, person, where),
            exclude=person.exclude,
            after=after,
            rerank=None if query.rerank is None else Rerank(**query.rerank.model_dump()),
            exact=query.exact,
        )
        return cls(gallery, calibrations, query, person, search)

    @property
    def previous_hits(self) -> int:
        """Number of hits of the previous pages."""
        return 0 if self.search.after is None else self.search.after.rank

    def audit_detail(self, result: SearchResult) -> dict[str, object]:
        """Return the detail of the audit entry: the query without its cursor, and id and score of each hit."""
        options = self.query.model_dump(mode="json", exclude_defaults=True, exclude={"cursor", "paginate"})
        after = {"after": self.previous_hits} if self.previous_hits else {}
        grouped = (hit for group in result.groups or () for hit in group.hits)
        found = [[hit.item.id, round(float(hit.score), 6)] for hit in (*result.hits, *grouped)]
        return {**self.person.source, **options, **after, "hits": len(result.hits), "found": found}

    def answer(self, result: SearchResult, timing: TimingMs) -> SearchAnswer:
        """Convert the result."""
        fitting = self._fitting(result)
        used = {modality: one.used for modality, one in fitting.items()}
        return SearchAnswer(
            gallery=self.gallery.name,
            model=self.gallery.model,
            fingerprint=self.gallery.fingerprint,
            modality=list(self.person.modalities),
            warnings=[sorted(warnings) for warnings in self.person.warnings],
            searched=result.searched,
            exact=result.recall is None,
            recall=result.recall,
            reranked=self.search.rerank is not None,
            calibration=next(iter(used.values()), None),
            calibrations=used,
            hits=self._hits(result.hits, fitting, result.searched, self.previous_hits + 1),
            groups=None
            if result.groups is None
            else [self._group(group, fitting, result.searched) for group in result.groups],
            next_cursor=self._next_cursor(result),
            timing_ms=timing,
        )

    def _fitting(self, result: SearchResult) -> dict[Modality, FittingCalibration]:
        """Return the calibration of each modality of the hits, that of the first hit first; of a filter without any."""
        modality = self.search.where.modality
        hits = chain(result.hits, *(group.hits for group in result.groups or ()))
        modalities = [hit.item.modality for hit in hits if not is_drawn(hit.item)]
        if not result.hits and modality is not None:
            modalities = [modality]
        found = {one: self.calibrations.find(self.person.modality, one) for one in dict.fromkeys(modalities)}
        return {one: fitting for one, fitting in found.items() if fitting is not None}

    def _hits(
        self, hits: tuple[Hit, ...], fitting: Mapping[Modality, FittingCalibration], searched: int, first: int = 1
    ) -> list[SearchHit]:
        return [_to_hit(rank, hit, fitting, searched) for rank, hit in enumerate(hits, first)]

    def _group(self, group: Group, fitting: Mapping[Modality, FittingCalibration], searched: int) -> SearchGroup:
        hits = self._hits(group.hits, fitting, searched)
        return SearchGroup(identity=group.identity, score=group.score, hits=hits)

    def _next_cursor(self, result: SearchResult) -> str | None:
        if result.end is None or not (self.query.paginate or self.query.cursor is not None):
            return None
        return write_cursor(digest_of(self.gallery, self.query, self.person.key), result.end)


@router.post(
    "/search",
    summary="Search for one person",
    response_model=SearchAnswer,
    responses=problems(404, 409, 413, 415, 429, 503),
    openapi_extra=request_body({FORM: SearchForm, JSON: SearchByStored}),
)
async def search(request: Request, gallery: ResolvedGallery, state: StateDep, caller: Searcher) -> Response:
    """Rank the items of a gallery for one person, given by images, by an item of the gallery or by an embedding.

    To get a ranking in pages, set `paginate`, and repeat the request with the `next_cursor` of each response as
    `cursor` of the query.
    """
    require_case(state)
    found, trace = state.galleries.catalog.cached(gallery), trace_of(request)
    media = media_type(request)
    if media == FORM:
        query, person, after = await _from_images(request, state, caller, found)
        return await run_in_threadpool(_answer, state, caller, trace, found, query, person, after)
    if media == JSON:
        body = await read_json(request, SearchByStored)
        return await run_in_threadpool(_answer_stored, state, caller, trace, found, body)
    raise BodyTypeUnsupported([FORM, JSON])


@router.post(
    "/searches",
    summary="Search for many people",
    response_model=SearchAnswers,
    responses=problems(404, 413, 503),
    openapi_extra=request_body({JSON: SearchBatch}),
)
async def search_many(request: Request, gallery: ResolvedGallery, state: StateDep, caller: Searcher) -> Response:
    """Run many searches, each by an item or an embedding. An invalid search does not affect the others.

    Searches with the same filter share one pass over the gallery, which is much faster than separate requests.
    """
    require_case(state)
    if media_type(request) != JSON:
        raise BodyTypeUnsupported([JSON])
    body = await read_json(request, SearchBatch)
    work = partial(_answer_many, state, caller, trace_of(request), gallery, body.searches)
    return await state.pools.scan(request, caller.key_id, work)


def _answer(
    state: AppState,
    caller: Caller,
    trace: Trace,
    gallery: Gallery,
    query: SearchQuery,
    person: Person,
    after: RankingPosition | None,
) -> Response:
    task = SearchTask.of(state, gallery, query, person, after)
    (result,) = _results(state, trace, gallery, [task])
    state.audit.require(caller.key_id, "search", gallery.name, task.audit_detail(result))
    answer = task.answer(result, trace.timing())
    _count(state, answer)
    return _json(answer)


def _answer_stored(state: AppState, caller: Caller, trace: Trace, gallery: Gallery, body: SearchByStored) -> Response:
    return _answer(state, caller, trace, gallery, body.query, *_from_stored(state, gallery, body))


def _answer_many(state: AppState, caller: Caller, trace: Trace, name: str, entries: Sequence[object]) -> Response:
    gallery = state.galleries.catalog.cached(name)
    tasks: dict[int, SearchTask] = {}
    outcomes: dict[int, SearchOutcome] = {}
    for index, entry in enumerate(entries):
        try:
            body = _parsed(entry)
            tasks[index] = SearchTask.of(state, gallery, body.query, *_from_stored(state, gallery, body))
        except ServiceError as error:
            outcomes[index] = SearchOutcome(index=index, error=describe(error))
    results = _results(state, trace, gallery, list(tasks.values()))
    details = [task.audit_detail(result) for task, result in zip(tasks.values(), results, strict=True)]
    state.audit.require(caller.key_id, "search", gallery.name, {"searches": details, "failed": len(outcomes)})
    timing = trace.timing()
    for (index, task), result in zip(tasks.items(), results, strict=True):
        answer = task.answer(result, timing)
        _count(state, answer)
        outcomes[index] = SearchOutcome(index=index, answer=answer)
    parts = ",".join(outcomes[index].model_dump_json() for index in range(len(entries)))
    return Response(f'{{"answers":[{parts}]}}', media_type=JSON)  # in parts, between which other threads run


def _count(state: AppState, answer: SearchAnswer) -> None:
    state.metrics.search(None if answer.calibration is None else answer.calibration.real)


def _json(answer: SearchAnswer) -> Response:
    """Serialise in this thread; FastAPI would validate the answer again, in the event loop."""
    return Response(answer.model_dump_json(), media_type=JSON)


def _results(state: AppState, trace: Trace, gallery: Gallery, tasks: Sequence[SearchTask]) -> list[SearchResult]:
    started = time.monotonic()
    searches = [task.search for task in tasks]
    results = state.galleries.query.search(gallery.name, searches, fingerprint=gallery.fingerprint)
    trace.seconds["search"] = time.monotonic() - started
    return results


def _parsed(entry: object) -> SearchByStored:
    try:
        return SearchByStored.model_validate(entry)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors())) from None


async def _from_images(
    request: Request, state: AppState, caller: Caller, gallery: Gallery
) -> tuple[SearchQuery, Person, RankingPosition | None]:
    body = await read_form(request, SearchForm)
    check_count(body.images, min(MAX_QUERY_IMAGES, state.settings.max_images))
    query, key = body.query, _key_of(body)
    source = {"images": len(body.images), "crops_sha256": [sha256(image).hexdigest() for image in body.images]}
    search = digest_of(gallery, query, key)
    after, recent = read_cursor(query.cursor, search), state.recent_queries.get(search)
    if after is not None and recent is not None:
        return query, Person(recent.vectors, recent.modalities, source, key), after
    engine = engine_of(state, gallery)
    with state.admission.admit(body.images, caller.key_id):
        found = await embed_all(request, engine, body.images, body.modality, details={Detail.WARNINGS})
    vectors, modalities = _fused([row.vector for row in found], query), tuple(row.modality for row in found)
    if after is not None:
        after = await run_in_threadpool(_scored_again, state, gallery, vectors, after)
    if after is not None or query.paginate:
        state.recent_queries.put(search, QueryVectors(vectors, modalities))
    return query, Person(vectors, modalities, source, key, warnings=tuple(row.warnings for row in found)), after


def _scored_again(state: AppState, gallery: Gallery, queries: Vectors, end: RankingPosition) -> RankingPosition:
    """Return a position with the score that its item has with ``queries``, the same images embedded again."""
    try:
        _, vector = state.galleries.query.vector(gallery.name, end.id)
    except ItemNotFound:
        return end
    return replace(end, score=float(inner_products(queries, vector[np.newaxis]).max()))


def _key_of(body: SearchForm) -> bytes:
    """Return a digest of the images and their modalities."""
    key = sha256(",".join(body.modality).encode())
    for image in body.images:
        key.update(sha256(image).digest())
    return key.digest()


def _from_stored(state: AppState, gallery: Gallery, body: SearchByStored) -> tuple[Person, RankingPosition | None]:
    person = _stored_person(state, gallery, body)
    return person, read_cursor(body.query.cursor, digest_of(gallery, body.query, person.key))


def _stored_person(state: AppState, gallery: Gallery, body: SearchByStored) -> Person:
    if body.item_id is not None:
        item, vector = state.galleries.query.vector(gallery.name, body.item_id)
        key = item.id.encode() + vector.tobytes()
        return Person(vector.reshape(1, -1), (item.modality,), {"item_id": item.id}, key, exclude=item.id)
    if body.vector is None or body.modality is None:
        raise TypeError("the schema does not allow such a body")
    if body.fingerprint not in (None, gallery.fingerprint):
        raise ModelMismatch(gallery.name, gallery.fingerprint, body.fingerprint)
    if len(body.vector) != gallery.dimension:
        raise ModelMismatch(gallery.name, f"{gallery.dimension} numbers", f"{len(body.vector)}")
    vector = unit_vector(body.vector)
    source = {"vector": True, "vector_sha256": sha256(vector.tobytes()).hexdigest()}
    return Person(vector[np.newaxis], (body.modality,), source, body.modality.encode() + vector.tobytes())


def _calibrations(state: AppState, gallery: Gallery, query: SearchQuery) -> Calibrations:
    """Return the calibrations that may apply: none to a query that feedback re-weights."""
    if query.feedback is not None:
        return Calibrations(None)
    engine = state.models.of_fingerprint(gallery.fingerprint)
    return Calibrations(None if engine is None else engine.card, state.calibrations.fitting(gallery))


def _reweighted(state: AppState, gallery: Gallery, query: SearchQuery, vectors: Vectors) -> Vectors:
    """Return the query vectors, moved by the marked items."""
    if query.feedback is None:
        return vectors
    right, wrong = (
        np.array([state.galleries.query.vector(gallery.name, id)[1] for id in ids], np.float32).reshape(
            -1, gallery.dimension
        )
        for ids in (query.feedback.right, query.feedback.wrong)
    )
    try:
        return reweight(vectors, right, wrong)
    except ValueError:
        raise invalid("query.feedback", "has marks that cancel the query out; mark fewer items wrong") from None


def _fused(vectors: Sequence[Vectors], query: SearchQuery) -> Vectors:
    try:
        return fuse(np.stack(vectors), Fusion(query.fusion))
    except ValueError:
        raise invalid("images", "have no mean: their embeddings cancel out") from None


def _least_score(
    state: AppState,
    gallery: Gallery,
    calibrations: Calibrations,
    query: SearchQuery,
    person: Person,
    where: Filter,
) -> float | None:
    """Return the highest of ``min_score`` and the scores of the limits on false match rate and false hits."""
    scores = [] if query.min_score is None else [query.min_score]
    for limit in ("max_false_match_rate", "max_expected_false_hits"):
        value = getattr(query, limit)
        if value is None:
            continue
        field = f"query.{limit}"
        if query.feedback is not None:
            raise invalid(field, "cannot be combined with feedback: no rates are measured for re-weighted queries")
        if where.modality is None or person.modality is None:
            raise invalid(field, "needs query images of one modality and a filter on one modality")
        calibration = calibrations.require(field, person.modality, where.modality).calibration
        if limit == "max_false_match_rate":
            scores.append(score_for(calibration, value, field))
        else:
            searched = state.galleries.query.count(gallery.name, where, person.exclude)
            scores.append(score_for_false_hits(calibration, value, searched))
    return max(scores, default=None)


def _to_hit(rank: int, hit: Hit, fitting: Mapping[Modality, FittingCalibration], searched: int) -> SearchHit:
    found = None if is_drawn(hit.item) else fitting.get(hit.item.modality)
    estimate = None if found is None else found.estimate(hit.score)
    return SearchHit(
        rank=rank,
        score=hit.score,
        false_match_rate=estimate and estimate.rate,
        false_match_rate_interval=estimate and estimate.interval,
        below=estimate is not None and estimate.below,
        expected_false_hits=estimate and estimate.rate * searched,
        rerank_distance=hit.rerank_distance,
        item=to_item_summary(hit.item),
    )
