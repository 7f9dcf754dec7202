"""Search a gallery for one person."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from models.card import Card, Modality
from server.api.auth import Caller, Searcher
from server.api.bodies import FORM, JSON, documented, media_type, read_form, read_json
from server.api.bound import engine_of
from server.api.calibration import rate_of, score_for
from server.api.errors import BodyTypeUnsupported, invalid, problems
from server.api.schemas import (
    MAX_QUERY_IMAGES,
    GalleryName,
    ItemFacts,
    SearchAnswer,
    SearchByStored,
    SearchForm,
    SearchGroup,
    SearchHit,
    SearchQuery,
)
from server.api.service import Service, ServiceDep
from server.api.trace import trace_of
from server.api.units import unit_vector
from server.api.uploads import check_count, embed_all
from server.errors import ModelMismatch
from server.gallery.types import Gallery, Hit, SearchResult, Vectors

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/search", tags=["search"])


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to look for: unit vectors ``[q, D]`` of one person, the modality of each, what to tell the audit.

    ``exclude``: the item that the vectors come from, which would find itself.
    """

    vectors: Vectors
    modalities: tuple[Modality, ...]
    source: dict[str, object]
    exclude: str | None = None

    @property
    def modality(self) -> Modality | None:
        """The one modality of all; None when they differ."""
        return self.modalities[0] if len(set(self.modalities)) == 1 else None


@router.post(
    "",
    responses=problems(404, 409, 413, 415, 429, 503),
    openapi_extra=documented({FORM: SearchForm, JSON: SearchByStored}),
)
async def search(request: Request, gallery: GalleryName, service: ServiceDep, caller: Searcher) -> SearchAnswer:
    """Rank the gallery for one person, seen in images, stored as an item, or given as an embedding."""
    bound = await run_in_threadpool(service.galleries.get, gallery)
    kind = media_type(request)
    if kind == FORM:
        query, person = await _from_images(request, service, bound)
    elif kind == JSON:
        body = await read_json(request, SearchByStored)
        query, person = body.query, await run_in_threadpool(_from_stored, service, bound, body)
    else:
        raise BodyTypeUnsupported([FORM, JSON])
    engine = service.models.of_fingerprint(bound.fingerprint)
    card = None if engine is None else engine.card
    started = time.monotonic()
    result = await run_in_threadpool(_ranked, service, caller, bound, card, query, person)
    trace = trace_of(request)
    trace.seconds["search"] = time.monotonic() - started
    return SearchAnswer(
        gallery=bound.name,
        model=bound.model,
        fingerprint=bound.fingerprint,
        modality=list(person.modalities),
        searched=result.searched,
        hits=_hits(result.hits, card, person),
        groups=None if result.groups is None else _groups(result, card, person),
        timing_ms=trace.timing(),
    )


async def _from_images(request: Request, service: Service, gallery: Gallery) -> tuple[SearchQuery, Person]:
    async with read_form(request, SearchForm) as body:
        check_count(body.images, min(MAX_QUERY_IMAGES, service.settings.max_images))
        engine = engine_of(service, gallery)
        with service.admission.admit(len(body.images)):
            found = await embed_all(request, engine, body.images, body.modality)
    vectors = np.stack([row.vector for row in found])
    return body.query, Person(vectors, tuple(row.modality for row in found), {"images": len(found)})


def _from_stored(service: Service, gallery: Gallery, body: SearchByStored) -> Person:
    if body.item_id is not None:
        item, vector = service.galleries.vector(gallery.name, body.item_id)
        return Person(vector.reshape(1, -1), (item.modality,), {"item_id": item.id}, exclude=item.id)
    if body.vector is None or body.modality is None:
        raise TypeError("the schema lets no such body pass")
    if body.fingerprint not in (None, gallery.fingerprint):
        raise ModelMismatch(gallery.name, gallery.fingerprint, body.fingerprint)
    if len(body.vector) != gallery.dimension:
        raise ModelMismatch(gallery.name, f"{gallery.dimension} numbers", f"{len(body.vector)}")
    return Person(unit_vector(body.vector)[np.newaxis], (body.modality,), {"vector": True})


def _ranked(
    service: Service, caller: Caller, gallery: Gallery, card: Card | None, query: SearchQuery, person: Person
) -> SearchResult:
    modality = _wanted(query.filter.modality, person)
    result = service.galleries.search(
        gallery.name,
        person.vectors,
        fingerprint=gallery.fingerprint,
        k=query.k,
        where=query.filter.where(modality),
        fusion=query.fusion,
        group=query.group_by is not None,
        min_score=_least_score(card, query, modality, person),
        exclude=person.exclude,
    )
    asked = query.model_dump(mode="json", exclude_defaults=True)
    service.audit.record(caller.key_id, "search", gallery.name, {**person.source, **asked, "hits": len(result.hits)})
    return result


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


def _hits(hits: tuple[Hit, ...], card: Card | None, person: Person) -> list[SearchHit]:
    return [
        SearchHit(
            rank=rank,
            score=hit.score,
            false_match_rate=card and rate_of(card, person.modality, hit.item.modality, hit.score),
            item=ItemFacts.of(hit.item),
        )
        for rank, hit in enumerate(hits, 1)
    ]


def _groups(result: SearchResult, card: Card | None, person: Person) -> list[SearchGroup]:
    return [
        SearchGroup(identity=group.identity, score=group.score, hits=_hits(group.hits, card, person))
        for group in result.groups or ()
    ]
