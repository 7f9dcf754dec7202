"""The client against the real server."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from models.card import Modality
from tests.server.image_files import TEXT, crop
from tests.server.stub_model import DIMENSION, HEIGHT, WIDTH, StubModel
from tests.vireid.conftest import MAX_IMAGES
from vireid.client import (
    ApiError,
    Client,
    Filter,
    ItemFields,
    RerankOptions,
    Scope,
    SearchOptions,
    StoredSearch,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def expected_embedding(content: bytes, modality: Modality) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    image = Image.open(io.BytesIO(content)).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    (vector,) = StubModel().embed(np.asarray(image)[None], np.array([modality.index]))
    return np.asarray(vector, np.float32)


def fill(client: Client, gallery: str, people: range) -> None:
    entries = [
        (
            crop(person, Modality.INFRARED, seed=1),
            ItemFields(
                id=f"p{person:02d}",
                identity=str(person),
                modality="infrared",
                camera=f"c{person % 2}",
                captured_at=NOON + timedelta(minutes=person),
                attributes={"number": person},
            ),
        )
        for person in people
    ]
    assert [result.status for result in client.add_items(gallery, entries)] == ["added"] * len(people)


def test_readiness_limits_and_models_are_read(client: Client) -> None:
    ready = client.ready()
    assert (ready.ready, ready.models[0].provider) == (True, "CPUExecutionProvider")
    assert client.limits().max_images == MAX_IMAGES
    assert client.models().default == "stub"
    assert client.models().models[0].dimension == DIMENSION


def test_embed_keeps_the_order_across_several_requests(client: Client) -> None:
    crops = [crop(person) for person in range(MAX_IMAGES + 3)]
    vectors = client.embed(crops, "visible")
    assert vectors.shape == (len(crops), DIMENSION)
    assert vectors.dtype == np.dtype(np.float32)
    for vector, content in zip(vectors, crops, strict=True):
        np.testing.assert_allclose(vector, expected_embedding(content, Modality.VISIBLE), atol=1e-5)


def test_embed_names_an_invalid_image_by_its_position(client: Client) -> None:
    crops = [crop(person) for person in range(MAX_IMAGES + 3)]
    crops[MAX_IMAGES + 1] = TEXT
    with pytest.raises(ApiError) as raised:
        client.embed(crops)
    assert raised.value.by_position.keys() == {MAX_IMAGES + 1}


def test_compare_returns_the_cosine_of_two_crops(client: Client) -> None:
    first, second = crop(1), crop(2)
    answer = client.compare(first, second, "visible")
    expected = expected_embedding(first, Modality.VISIBLE) @ expected_embedding(second, Modality.VISIBLE)
    assert answer.score == pytest.approx(float(expected), abs=1e-5)
    assert answer.same_at is not None


def test_a_gallery_is_created_updated_listed_and_deleted(client: Client, gallery: str) -> None:
    assert gallery in [found.name for found in client.galleries()]
    assert client.update_gallery(gallery, retention_days=5, description="x").retention_days == 5
    assert client.update_gallery(gallery, retention_days=None).description == "x"
    assert client.gallery(gallery).retention_days is None
    client.delete_gallery(gallery)
    with pytest.raises(ApiError) as raised:
        client.gallery(gallery)
    assert raised.value.status == 404


def test_items_are_added_listed_updated_and_deleted(client: Client, gallery: str) -> None:
    fill(client, gallery, range(MAX_IMAGES + 4))
    assert [item.id for item in client.items(gallery)] == [f"p{person:02d}" for person in range(MAX_IMAGES + 4)]
    late = Filter(cameras=["c1"], captured_from=NOON + timedelta(minutes=9))
    assert [item.id for item in client.items(gallery, late)] == ["p09", "p11"]
    changed = client.update_item(gallery, "p03", identity=None, captured_at=NOON)
    assert changed == client.item(gallery, "p03")
    assert (changed.identity, changed.captured_at, changed.camera) == (None, NOON, "c1")
    assert Image.open(io.BytesIO(client.image(gallery, "p03"))).format == "JPEG"
    client.delete_item(gallery, "p03")
    receipt = client.erase(gallery, Filter(identities=["4", "5"]))
    assert (receipt.items, receipt.complete) == (2, True)
    assert client.receipt(receipt.id) == next(client.receipts()) == receipt
    assert client.gallery(gallery).items == MAX_IMAGES + 1


def test_erase_refuses_an_empty_filter(client: Client, gallery: str) -> None:
    fill(client, gallery, range(2))
    with pytest.raises(ApiError) as raised:
        client.erase(gallery, Filter())
    assert (raised.value.status, client.gallery(gallery).items) == (422, 2)


def test_an_invalid_image_fails_without_the_others_and_results_are_numbered_across_requests(
    client: Client, gallery: str
) -> None:
    contents = [crop(person) for person in range(MAX_IMAGES)] + [TEXT, crop(90), TEXT]
    results = client.add_items(
        gallery, [(content, ItemFields(id=f"x{i}", modality="auto")) for i, content in enumerate(contents)]
    )
    assert [result.index for result in results] == list(range(len(contents)))
    assert [result.index for result in results if result.status == "failed"] == [MAX_IMAGES, MAX_IMAGES + 2]
    assert client.gallery(gallery).items == len(contents) - 2


def test_precomputed_vectors_are_added_and_found(client: Client, gallery: str) -> None:
    vectors = client.embed([crop(person) for person in range(5)], "visible")
    entries = [(vector, ItemFields(id=f"v{i}", modality="visible")) for i, vector in enumerate(vectors)]
    fingerprint = client.gallery(gallery).fingerprint
    assert {result.status for result in client.add_vectors(gallery, entries, fingerprint=fingerprint)} == {"added"}
    assert client.search(gallery, [crop(3)], modality="visible", k=1).hits[0].item.id == "v3"
    with pytest.raises(ApiError) as raised:
        client.add_vectors(gallery, entries, fingerprint="0" * 64)
    assert raised.value.status == 409


def test_image_item_and_vector_of_one_crop_give_the_same_ranking(client: Client, gallery: str) -> None:
    fill(client, gallery, range(10))
    query = crop(4, Modality.INFRARED, seed=1)
    by_image = client.search(gallery, [query], modality="infrared", k=3)
    by_vector = client.search(gallery, vector=expected_embedding(query, Modality.INFRARED), modality="infrared", k=3)
    by_item = client.search(gallery, item_id="p04", k=2)
    assert [hit.item.id for hit in by_image.hits] == [hit.item.id for hit in by_vector.hits]
    assert by_image.hits[0].item.id == "p04"
    assert [hit.item.id for hit in by_item.hits] == [hit.item.id for hit in by_image.hits[1:]]


def test_a_search_is_filtered_fused_and_grouped(client: Client, gallery: str) -> None:
    fill(client, gallery, range(10))
    images = [crop(2), crop(2, seed=5)]
    where = Filter(modality="opposite", cameras=("c0",), attributes={"number": 2})
    answer = client.search(gallery, images, modality="visible", filter=where, fusion="max", group_by="identity")
    assert (answer.searched, answer.modality) == (1, (Modality.VISIBLE, Modality.VISIBLE))
    assert answer.groups is not None
    assert [group.identity for group in answer.groups] == ["2"]
    assert not client.search(gallery, images, filter=Filter(exclude_cameras=("c0", "c1"))).hits


def test_hits_yields_every_hit_once_for_any_page_size(client: Client, gallery: str) -> None:
    fill(client, gallery, range(10))
    options: SearchOptions = {"filter": Filter(exclude_identities=("7",), exclude_attributes={"number": 8})}
    whole = client.search(gallery, [crop(2)], k=1000, **options).hits
    assert [hit.rank for hit in whole] == list(range(1, 9))
    for k in (1, 3, 8, 100):
        assert tuple(client.hits(gallery, [crop(2)], k=k, **options)) == whole
        by_item = client.search(gallery, item_id="p02", k=1000, **options).hits
        assert tuple(client.hits(gallery, item_id="p02", k=k, **options)) == by_item


def test_rerank_orders_the_candidates_by_distance(client: Client, gallery: str) -> None:
    fill(client, gallery, range(10))
    plain, reranked = (client.search(gallery, [crop(2)], rerank=rerank) for rerank in (False, True))
    assert (plain.reranked, reranked.reranked) == (False, True)
    distances = [hit.rerank_distance for hit in reranked.hits if hit.rerank_distance is not None]
    assert distances == sorted(distances)
    assert {hit.item.id: hit.score for hit in reranked.hits} == {hit.item.id: hit.score for hit in plain.hits}
    some = client.search(gallery, [crop(2)], rerank=RerankOptions(candidates=4))
    assert [hit.rerank_distance is None for hit in some.hits] == [False] * 4 + [True] * 6


def test_search_many_keeps_the_order_and_reports_an_invalid_search_by_itself(client: Client, gallery: str) -> None:
    fill(client, gallery, range(10))
    vector = expected_embedding(crop(4, Modality.INFRARED, seed=1), Modality.INFRARED)
    searches: list[StoredSearch] = [{"item_id": f"p{n % 10:02d}", "k": 2} for n in range(client.limits().max_searches)]
    searches += [{"item_id": "absent"}, {"vector": vector, "modality": "infrared", "k": 1}]
    found = client.search_many(gallery, searches)
    assert [outcome.index for outcome in found] == list(range(len(searches)))
    assert [outcome.error.status for outcome in found if outcome.error] == [404]
    assert found[-2].answer is None
    assert found[-1].answer is not None
    assert found[-1].answer.hits[0].item.id == "p04"
    for search, outcome in zip(searches[:10], found, strict=False):
        assert outcome.answer is not None
        assert outcome.answer.hits == client.search(gallery, item_id=search["item_id"], k=2).hits


def test_an_unknown_search_option_is_rejected_before_sending(client: Client, gallery: str) -> None:
    with pytest.raises(ValueError, match="top_k"):
        client.search(gallery, item_id="p00", top_k=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="top_k"):
        client.search_many(gallery, [{"item_id": "p00", "top_k": 3}])  # type: ignore[typeddict-unknown-key]


def test_keys_are_created_listed_and_deleted(client: Client, gallery: str) -> None:
    created = client.create_key("reader", [Scope.SEARCH], [gallery])
    assert created.secret
    assert [key.galleries for key in client.api_keys() if key.id == created.id] == [(gallery,)]
    client.delete_key(created.id)
    assert created.id not in [key.id for key in client.api_keys()]


def test_environment_proxies_are_not_used_for_loopback_addresses(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Client(url) as client:
        assert client.ready().ready
