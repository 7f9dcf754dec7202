"""Search over HTTP, compared with brute force."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from models.card import Modality
from server.api.calibration import score_for
from server.domain.types import Rerank
from server.index.rerank import reranked_distances
from tests.server.calls import add, add_people, check_problem, search
from tests.server.conftest import Start
from tests.server.image_files import crop, encode
from tests.server.stub_model import HEIGHT, WIDTH, StubModel, card, write_model

PEOPLE = range(12)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def vector(image: bytes, modality: Modality) -> np.ndarray:
    """Return the NumPy model's embedding of an image file."""
    seen = Image.open(io.BytesIO(image)).convert("L" if modality is Modality.INFRARED else "RGB")
    resized = seen.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    (found,) = StubModel().embed(np.asarray(resized.convert("RGB"))[np.newaxis], np.array([modality.index]))
    return np.asarray(found)


def fields(person: int, modality: Modality) -> dict[str, Any]:
    return {
        "id": f"{modality}-{person:02d}",
        "identity": f"p{person // 2}" if person % 3 else None,
        "modality": modality.value,
        "camera": f"c{person % 3}" if person % 4 else None,
        "captured_at": (NOON + timedelta(hours=person)).isoformat() if person % 5 else None,
        "attributes": {"site": "north" if person % 2 else "south", "floor": person % 2},
    }


ITEMS = [fields(person, modality) for person in PEOPLE for modality in Modality]
CROPS = [crop(person, modality, seed=1) for person in PEOPLE for modality in Modality]


@pytest.fixture(scope="module")
def filled(client: TestClient) -> str:
    client.post("/v1/galleries", json={"name": "filled"})
    assert add(client, "filled", CROPS, ITEMS).status_code == 201
    return "filled"


def brute_force(score: Any, passes: Any, k: int) -> list[tuple[str, float]]:
    """Return ids and scores of the ``k`` best items that pass, ties by id."""
    scored = [(float(score(image, item)), item["id"]) for image, item in zip(CROPS, ITEMS, strict=True) if passes(item)]
    return [(name, value) for value, name in sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:k]]


def check_hits(answer: Any, expected: list[tuple[str, float]]) -> None:
    assert answer.status_code == 200, answer.text
    hits = answer.json()["hits"]
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    assert [hit["item"]["id"] for hit in hits] == [name for name, _ in expected]
    np.testing.assert_allclose([hit["score"] for hit in hits], [score for _, score in expected], atol=1e-5)


def score_of(*images: bytes, fusion: str = "mean") -> Any:
    queries = np.stack([vector(image, Modality.VISIBLE) for image in images])
    mean = queries.mean(0) / np.linalg.norm(queries.mean(0))

    def score(image: bytes, item: dict[str, Any]) -> float:
        found = vector(image, Modality(item["modality"]))
        return float(found @ mean) if fusion == "mean" else float((queries @ found).max())

    return score


def time_of(item: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(item["captured_at"] or "1900-01-01T00:00:00Z")


FILTERS = [
    ({}, lambda item: True),
    ({"modality": "opposite"}, lambda item: item["modality"] == "infrared"),
    ({"modality": "visible"}, lambda item: item["modality"] == "visible"),
    ({"cameras": ["c1", "c2"]}, lambda item: item["camera"] in ("c1", "c2")),
    ({"exclude_cameras": ["c1"]}, lambda item: item["camera"] != "c1"),
    ({"identities": ["p2", "p5"]}, lambda item: item["identity"] in ("p2", "p5")),
    ({"captured_from": "2026-11-21T15:00:00Z"}, lambda item: time_of(item) >= NOON + timedelta(hours=3)),
    (
        {"captured_from": "2026-11-21T13:00:00+01:00", "captured_to": "2026-11-21T18:00:00Z"},
        lambda item: NOON <= time_of(item) < NOON + timedelta(hours=6),
    ),
    ({"attributes": {"site": "north"}}, lambda item: item["attributes"]["site"] == "north"),
    ({"attributes": {"floor": 1}, "cameras": ["c1"]}, lambda i: i["attributes"]["floor"] == 1 and i["camera"] == "c1"),
    ({"cameras": ["c9"]}, lambda item: False),
]  # fmt: skip


@pytest.mark.parametrize(("where", "passes"), FILTERS, ids=[json.dumps(where) for where, _ in FILTERS])
def test_hits_equal_brute_force_over_the_filtered_items(
    client: TestClient, filled: str, where: Any, passes: Any
) -> None:
    for k in (1, 5, 1000):
        answer = search(client, filled, [crop(3)], "visible", k=k, filter=where)
        check_hits(answer, brute_force(score_of(crop(3)), passes, k))
        assert answer.json()["searched"] == sum(passes(item) for item in ITEMS)


@pytest.mark.parametrize("fusion", ["mean", "max"])
def test_several_images_are_fused_by_the_given_method(client: TestClient, filled: str, fusion: str) -> None:
    images = [crop(3, seed=0), crop(3, seed=2), crop(3, seed=5)]
    answer = search(client, filled, images, "visible", k=8, fusion=fusion)
    check_hits(answer, brute_force(score_of(*images, fusion=fusion), lambda item: True, 8))
    assert answer.json()["modality"] == ["visible"] * 3


def test_answer_reports_searched_items_and_timing(client: TestClient, filled: str) -> None:
    answer = search(client, filled, [crop(3)], k=1, filter={"modality": "opposite"}).json()
    details = client.get(f"/v1/galleries/{filled}").json()
    assert (answer["gallery"], answer["model"], answer["fingerprint"]) == (filled, "stub", details["fingerprint"])
    assert answer["modality"] == ["visible"]
    assert answer["groups"] is None
    timing = answer["timing_ms"]
    assert timing.keys() == {"queue", "decode", "embed", "search", "total"}
    assert all(timing[stage] > 0 for stage in ("decode", "embed", "search"))
    assert timing["total"] >= max(timing[stage] for stage in ("queue", "decode", "embed", "search"))
    item = answer["hits"][0]["item"]
    expected = next(entry for entry in ITEMS if entry["id"] == item["id"])
    assert {name: item[name] for name in expected if name != "captured_at"} == {
        name: value for name, value in expected.items() if name != "captured_at"
    }


def test_groups_list_each_identity_once_with_its_best_score(client: TestClient, filled: str) -> None:
    answer = search(client, filled, [crop(3)], "visible", k=4, group_by="identity").json()
    every = brute_force(score_of(crop(3)), lambda item: True, 1000)
    identity = {item["id"]: item["identity"] for item in ITEMS}
    expected: dict[str, list[str]] = {}
    for name, _ in every:
        expected.setdefault(identity[name] or f"alone:{name}", []).append(name)
    found = [[hit["item"]["id"] for hit in group["hits"]] for group in answer["groups"]]
    assert found == list(expected.values())[:4]
    for group in answer["groups"]:
        assert group["score"] == group["hits"][0]["score"]
        assert {hit["item"]["identity"] for hit in group["hits"]} == {group["identity"]}
    check_hits(search(client, filled, [crop(3)], "visible", k=4), every[:4])


def test_search_by_item_excludes_the_item_itself(client: TestClient, filled: str) -> None:
    name = "visible-03"
    answer = client.post(f"/v1/galleries/{filled}/search", json={"item_id": name, "query": {"k": 5}})
    query = vector(CROPS[[item["id"] for item in ITEMS].index(name)], Modality.VISIBLE)

    def score(image: bytes, item: dict[str, Any]) -> float:
        return float(query @ vector(image, Modality(item["modality"])))

    check_hits(answer, brute_force(score, lambda item: item["id"] != name, 5))
    assert answer.json()["searched"] == len(ITEMS) - 1
    other = client.post(
        f"/v1/galleries/{filled}/search", json={"item_id": name, "query": {"filter": {"modality": "opposite"}}}
    )
    assert {hit["item"]["modality"] for hit in other.json()["hits"]} == {"infrared"}


def test_search_by_embedding_equals_search_by_its_image(client: TestClient, filled: str) -> None:
    embedded = client.post("/v1/embeddings", files=[("images", crop(3))], data={"modality": "visible"}).json()
    body = {
        "vector": embedded["embeddings"][0]["vector"],
        "modality": "visible",
        "fingerprint": embedded["fingerprint"],
        "query": {"k": 6, "filter": {"modality": "opposite"}},
    }
    answer = client.post(f"/v1/galleries/{filled}/search", json=body)
    check_hits(answer, brute_force(score_of(crop(3)), lambda item: item["modality"] == "infrared", 6))
    body["fingerprint"] = "0" * 64
    check_problem(client.post(f"/v1/galleries/{filled}/search", json=body), 409, "model-mismatch")


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 422, "invalid-request"),
        ({"item_id": "a", "vector": [1.0], "modality": "visible"}, 422, "invalid-request"),
        ({"vector": [1.0]}, 422, "invalid-request"),
        ({"item_id": "a", "modality": "visible"}, 422, "invalid-request"),
        ({"vector": [0.5, 0.5], "modality": "visible"}, 422, "invalid-request"),
        ({"vector": [], "modality": "visible"}, 422, "invalid-request"),
        ({"vector": [1.0], "modality": "visible"}, 409, "model-mismatch"),
        ({"item_id": "absent"}, 404, "item-not-found"),
    ],
)
def test_search_without_images_requires_an_item_or_a_vector(
    client: TestClient, filled: str, body: Any, status: int, kind: str
) -> None:
    check_problem(client.post(f"/v1/galleries/{filled}/search", json=body), status, kind)


def test_nan_and_infinity_are_rejected(client: TestClient, filled: str) -> None:
    for number in ("NaN", "Infinity", "1e999"):
        content = f'{{"vector": [{number}], "modality": "visible"}}'
        answer = client.post(
            f"/v1/galleries/{filled}/search", content=content, headers={"Content-Type": "application/json"}
        )
        check_problem(answer, 422, "invalid-request")


def test_opposite_of_mixed_modalities_is_rejected(client: TestClient, filled: str) -> None:
    answer = search(client, filled, [crop(1)] * 2, ["visible", "infrared"], filter={"modality": "opposite"})
    assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "query.filter.modality"


def test_min_score_excludes_lower_hits(client: TestClient, filled: str) -> None:
    every = brute_force(score_of(crop(3)), lambda item: True, 1000)
    least = (every[4][1] + every[5][1]) / 2
    check_hits(search(client, filled, [crop(3)], "visible", k=100, min_score=least), every[:5])


# The calibration of the stub model: rate 1 at score -1, 1e-2 at 0, 1e-3 at 0.5, 1e-4 at 1, log-linear between.


def expected_rate(score: float) -> float:
    scores, rates = [-1.0, 0.0, 0.5, 1.0], [0.0, -2.0, -3.0, -4.0]
    return float(10 ** np.interp(score, scores, rates))


def test_each_hit_has_the_false_match_rate_of_its_score(client: TestClient, filled: str) -> None:
    for hit in search(client, filled, [crop(3)], k=1000).json()["hits"]:
        assert hit["false_match_rate"] == pytest.approx(expected_rate(hit["score"]), rel=1e-6)


@pytest.mark.parametrize("rate", [0.05, 0.01, 0.004, 0.0015])
def test_max_false_match_rate_excludes_hits_below_its_score(client: TestClient, filled: str, rate: float) -> None:
    options = {"k": 1000, "filter": {"modality": "opposite"}}
    every = search(client, filled, [crop(3)], "visible", **options).json()["hits"]
    kept = search(client, filled, [crop(3)], "visible", max_false_match_rate=rate, **options).json()["hits"]
    assert kept == [hit for hit in every if hit["false_match_rate"] <= rate]


@pytest.mark.parametrize("rate", [1.0, 0.3, 1e-2, 1e-3, 2e-4])
def test_score_for_a_rate_is_the_smallest_that_satisfies_it(rate: float) -> None:
    query, gallery = Modality.VISIBLE, Modality.INFRARED
    calibration = card("m").calibration(query, gallery)
    assert calibration is not None
    score = score_for(calibration, rate)
    assert calibration.false_match_rate(score) <= rate * (1 + 1e-9)
    assert score == -1 or calibration.false_match_rate(score - 1e-6) > rate


def test_rate_requires_one_modality_and_enough_impostor_pairs(client: TestClient, filled: str) -> None:
    for options in (
        {"max_false_match_rate": 0.01},
        {"max_false_match_rate": 1e-5, "filter": {"modality": "opposite"}},
    ):
        answer = search(client, filled, [crop(1)], "visible", **options)
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "query.max_false_match_rate"


def test_without_calibration_rates_are_null_and_rejected_as_filter(start: Start, tmp_path: Any) -> None:
    write_model(tmp_path / "zoo" / "stub", calibrated=False)
    with start(model_dir=tmp_path / "zoo") as client:
        client.post("/v1/galleries", json={"name": "g"})
        add_people(client, "g", [1], Modality.INFRARED)
        assert search(client, "g", [crop(1)]).json()["hits"][0]["false_match_rate"] is None
        answer = search(client, "g", [crop(1)], filter={"modality": "opposite"}, max_false_match_rate=0.01)
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "query.max_false_match_rate"
        same = client.post("/v1/compare", files=[("images", crop(1))] * 2).json()
        assert (same["false_match_rate"], same["same_at"]) == (None, None)


def test_search_of_an_empty_gallery_has_no_hits(client: TestClient, gallery: str) -> None:
    answer = search(client, gallery, [crop(1)], group_by="identity").json()
    assert (answer["searched"], answer["hits"], answer["groups"]) == (0, [], [])


def test_cross_modality_search_is_far_above_chance(client: TestClient, gallery: str) -> None:
    people = range(40)
    add_people(client, gallery, people, Modality.INFRARED)
    best = [search(client, gallery, [crop(person)], k=1, filter={"modality": "opposite"}).json() for person in people]
    found = sum(answer["hits"][0]["item"]["id"] == f"p{person}" for person, answer in zip(people, best, strict=True))
    assert found > 8  # by chance: 1


def test_exclude_filters_keep_items_without_a_value(client: TestClient, filled: str) -> None:
    where = {"exclude_identities": ["p2", "p5"], "exclude_attributes": {"site": "north", "floor": 5}}
    answer = search(client, filled, [crop(3)], "visible", k=1000, filter=where)

    def passes(item: dict[str, Any]) -> bool:
        return item["identity"] not in ("p2", "p5") and item["attributes"]["site"] != "north"

    check_hits(answer, brute_force(score_of(crop(3)), passes, 1000))


def test_concatenated_pages_equal_one_large_answer(client: TestClient, filled: str) -> None:
    images = [crop(3, seed=0), crop(3, seed=2)]
    embedded = client.post("/v1/embeddings", files=[("images", crop(3))], data={"modality": "visible"}).json()
    address = f"/v1/galleries/{filled}/search"

    def by_image(**query: object) -> Any:
        return search(client, filled, images, "auto", fusion="max", **query)

    def by_item(**query: object) -> Any:
        return client.post(address, json={"item_id": "visible-03", "query": query})

    def by_vector(**query: object) -> Any:
        vector = embedded["embeddings"][0]["vector"]
        return client.post(address, json={"vector": vector, "modality": "visible", "query": query})

    for ask in (by_image, by_item, by_vector):
        whole = ask(k=1000, filter={"exclude_cameras": ["c1"]}).json()
        assert whole["next_cursor"] is None
        hits, cursor = [], None
        for k in (3, 1, 4, 1000):
            page = ask(k=k, cursor=cursor, paginate=True, filter={"exclude_cameras": ["c1"]}).json()
            assert (page["searched"], page["modality"]) == (whole["searched"], whole["modality"])
            hits += page["hits"]
            cursor = page["next_cursor"]
        assert cursor is None
        assert hits == whole["hits"]


def test_next_page_of_a_search_by_images_does_not_embed_again(client: TestClient, filled: str) -> None:
    first = search(client, filled, [crop(3)], "visible", k=2, paginate=True).json()
    second = search(client, filled, [crop(3)], "visible", k=2, cursor=first["next_cursor"]).json()
    assert (first["timing_ms"]["embed"] > 0, second["timing_ms"]["embed"]) == (True, 0)


def test_cursor_is_short_without_vectors_and_only_sent_when_asked_for(client: TestClient, gallery: str) -> None:
    names = [f"{n}{'x' * 127}" for n in range(3)]
    add(client, gallery, [crop(n) for n in range(3)], [{"id": name, "modality": "visible"} for name in names])
    assert search(client, gallery, [crop(3)] * 2, "visible", k=2).json()["next_cursor"] is None
    cursor = search(client, gallery, [crop(3)] * 2, "visible", k=2, paginate=True).json()["next_cursor"]
    assert len(cursor) <= 200


def test_next_page_continues_where_the_query_vectors_are_not_kept_any_more(client: TestClient, filled: str) -> None:
    whole = search(client, filled, [crop(3)], "visible", k=9).json()["hits"]
    first = search(client, filled, [crop(3)], "visible", k=4, paginate=True).json()
    client.app.state.service.recent_queries._found.clear()  # type: ignore[attr-defined]
    second = search(client, filled, [crop(3)], "visible", k=5, cursor=first["next_cursor"]).json()
    assert second["timing_ms"]["embed"] > 0
    assert [hit["item"]["id"] for hit in first["hits"] + second["hits"]] == [hit["item"]["id"] for hit in whole]


def test_cursor_of_another_search_or_forged_cursor_is_rejected(client: TestClient, filled: str) -> None:
    first = search(client, filled, [crop(3)], "visible", k=2, paginate=True).json()["next_cursor"]
    body = {"item_id": "visible-03", "query": {"k": 2, "paginate": True}}
    stored = client.post(f"/v1/galleries/{filled}/search", json=body).json()["next_cursor"]
    raw = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4))
    changed = [raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :] for place in range(len(raw))]
    forged = [base64.urlsafe_b64encode(content).decode() for content in (raw[:20], raw[:-1], raw + b"a", *changed)]
    for cursor in ["", "nonsense", "=", "ö", "\x00", "A" * 10_000, first + "!", stored, *forged]:
        answer = search(client, filled, [crop(3)], "visible", k=2, cursor=cursor)
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "query.cursor"
    for images, modality, options in (
        ([crop(4)], "visible", {}),
        ([crop(3)], "infrared", {}),
        ([crop(3)] * 2, "visible", {}),
        ([crop(3)], "visible", {"min_score": 0.0}),
        ([crop(3)], "visible", {"filter": {"cameras": ["c1"]}}),
    ):
        answer = search(client, filled, images, modality, cursor=first, **options)
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "query.cursor"
    assert search(client, filled, [crop(3)], "visible", k=7, cursor=first).status_code == 200


def test_cursor_of_a_replaced_item_is_rejected(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, range(5), Modality.INFRARED)
    address = f"/v1/galleries/{gallery}/search"
    cursor = client.post(address, json={"item_id": "p1", "query": {"k": 2, "paginate": True}}).json()["next_cursor"]
    body = {"item_id": "p1", "query": {"k": 2, "cursor": cursor}}
    assert client.post(address, json=body).status_code == 200
    assert add(client, gallery, [crop(9, seed=4)], [{"id": "p1", "modality": "visible"}]).status_code == 201
    assert (
        check_problem(client.post(address, json=body), 422, "invalid-request")["errors"][0]["field"] == "query.cursor"
    )


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"group_by": "identity", "cursor": "x"}, "query.cursor"),
        ({"rerank": True, "cursor": "x"}, "query.cursor"),
        ({"group_by": "identity", "rerank": {}}, "query.rerank"),
    ],
)
def test_groups_pages_and_reranking_cannot_be_combined(
    client: TestClient, filled: str, query: dict[str, object], field: str
) -> None:
    answer = search(client, filled, [crop(3)], **query)
    assert [error["field"] for error in check_problem(answer, 422, "invalid-request")["errors"]] == [field]


@pytest.mark.parametrize("rerank", [True, {"candidates": 7, "k1": 4, "k2": 2, "lambda_": 0.5}])
def test_reranked_answer_is_ordered_by_distance_and_reports_the_cosine(
    client: TestClient, filled: str, rerank: Any
) -> None:
    plain = search(client, filled, [crop(3)], "visible", k=10).json()
    answer = search(client, filled, [crop(3)], "visible", k=10, rerank=rerank).json()
    assert (plain["reranked"], answer["reranked"], answer["next_cursor"]) == (False, True, None)
    assert {hit["rerank_distance"] for hit in plain["hits"]} == {None}
    options = Rerank() if rerank is True else Rerank(**rerank)
    every = brute_force(score_of(crop(3)), lambda item: True, 1000)
    near = every[: options.candidates]
    named = {item["id"]: vector(image, Modality(item["modality"])) for image, item in zip(CROPS, ITEMS, strict=True)}
    query = vector(crop(3), Modality.VISIBLE)[np.newaxis]
    distances = reranked_distances(query, np.stack([named[name] for name, _ in near]), options)
    order = np.argsort(distances, kind="stable")
    expected = [near[n] for n in order] + every[len(near) :]
    check_hits(search(client, filled, [crop(3)], "visible", k=10, rerank=rerank), expected[:10])
    found = [hit["rerank_distance"] for hit in answer["hits"]]
    assert found[len(near) :] == [None] * len(found[len(near) :])
    np.testing.assert_allclose(found[: len(near)], distances[order][:10], atol=1e-5)


def test_invalid_reranking_options_are_named(client: TestClient, filled: str) -> None:
    for rerank, field in (
        ({"candidates": 1001}, "query.rerank.candidates"),
        ({"k1": 0}, "query.rerank.k1"),
        ({"lambda_": 2}, "query.rerank.lambda_"),
        ({"lambda": 0.1}, "query.rerank.lambda"),
        ("yes", "query.rerank"),
        (1, "query.rerank"),
    ):
        answer = search(client, filled, [crop(3)], rerank=rerank)
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == field
    assert search(client, filled, [crop(3)], rerank=None).json()["reranked"] is False


def batch(client: TestClient, gallery: str, searches: Any) -> Any:
    return client.post(f"/v1/galleries/{gallery}/searches", json={"searches": searches})


def test_batch_of_searches_equals_single_searches(client: TestClient, filled: str) -> None:
    embedded = client.post("/v1/embeddings", files=[("images", crop(7))], data={"modality": "visible"}).json()
    vector = embedded["embeddings"][0]["vector"]
    bodies = [
        {"item_id": "visible-03", "query": {"k": 4}},
        {"item_id": "infrared-05", "query": {"k": 30}},
        {"vector": vector, "modality": "visible", "query": {"filter": {"modality": "opposite"}}},
        {"item_id": "visible-04", "query": {"group_by": "identity", "k": 3}},
        {"item_id": "visible-04", "query": {"rerank": {"candidates": 8}}},
        {"item_id": "visible-01", "query": {"filter": {"cameras": ["c1"]}, "min_score": 0.1}},
    ]  # fmt: skip
    first = client.post(
        f"/v1/galleries/{filled}/search", json={**bodies[0], "query": {"k": 4, "paginate": True}}
    ).json()
    bodies.append({"item_id": "visible-03", "query": {"k": 4, "cursor": first["next_cursor"]}})
    answer = batch(client, filled, bodies)
    assert answer.status_code == 200
    for index, (body, outcome) in enumerate(zip(bodies, answer.json()["answers"], strict=True)):
        alone = client.post(f"/v1/galleries/{filled}/search", json=body).json()
        assert (outcome["index"], outcome["error"]) == (index, None)
        assert outcome["answer"] | {"timing_ms": 0} == alone | {"timing_ms": 0}


def test_invalid_search_of_a_batch_fails_only_itself(client: TestClient, filled: str) -> None:
    broken = [
        ({"item_id": "absent"}, 404, "item-not-found"),
        ({"item_id": "visible-01", "query": {"k": 0}}, 422, "invalid-request"),
        ({"item_id": "visible-01", "query": {"max_false_match_rate": 0.1}}, 422, "invalid-request"),
        ({"item_id": "visible-01", "query": {"cursor": "x"}}, 422, "invalid-request"),
        ({"vector": [1.0], "modality": "visible"}, 409, "model-mismatch"),
        ({}, 422, "invalid-request"),
        ("visible-01", 422, "invalid-request"),
    ]
    outcomes = batch(client, filled, [*(body for body, _, _ in broken), {"item_id": "visible-01"}]).json()["answers"]
    for outcome, (_, status, kind) in zip(outcomes[:-1], broken, strict=True):
        assert outcome["answer"] is None
        assert (outcome["error"]["status"], outcome["error"]["type"]) == (status, f"/problems/{kind}")
    assert outcomes[1]["error"]["errors"] == [{"field": "query.k", "detail": "must be at least 1"}]
    assert len(outcomes[-1]["answer"]["hits"]) == 10


def test_batch_has_one_audit_entry_without_vectors(client: TestClient, filled: str) -> None:
    first = search(client, filled, [crop(3)], "visible", k=2, paginate=True).json()
    search(client, filled, [crop(3)], "visible", k=2, cursor=first["next_cursor"])
    batch(client, filled, [{"item_id": "visible-03", "query": {"k": 2}}, {"item_id": "absent"}])
    entries = client.get("/v1/audit", params={"limit": 2}).json()["entries"]
    assert [(entry["action"], entry["gallery"]) for entry in entries] == [("search", filled)] * 2
    (searched,) = entries[0]["detail"]["searches"]
    found = searched.pop("found")
    assert entries[0]["detail"] == {"searches": [{"item_id": "visible-03", "k": 2, "hits": 2}], "failed": 1}
    assert [len(hit) for hit in found] == [2, 2]  # id and score
    pages = entries[1]["detail"]
    assert len(pages.pop("found")) == 2
    assert pages.pop("crops_sha256") == [sha256(crop(3)).hexdigest()]
    assert pages == {"images": 1, "k": 2, "after": 2, "hits": 2}


def test_batch_size_is_limited_and_gallery_must_exist(client: TestClient, filled: str) -> None:
    limit = client.get("/v1/limits").json()["max_searches"]
    one = {"item_id": "visible-01", "query": {"k": 1}}
    assert len(batch(client, filled, [one] * limit).json()["answers"]) == limit
    for searches in ([one] * (limit + 1), [], "x"):
        answer = batch(client, filled, searches)
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "searches"
    check_problem(batch(client, "nowhere", [one]), 404, "gallery-not-found")
    answer = client.post(f"/v1/galleries/{filled}/searches", files=[("images", crop(1))])
    check_problem(answer, 415, "body-type-unsupported")


def test_warnings_filter_searches_lists_and_erasures(client: TestClient, gallery: str) -> None:
    dark = encode(np.zeros((128, 64, 3), np.uint8))
    items = [{"id": name, "modality": "visible"} for name in ("fine", "dark")]
    assert add(client, gallery, [crop(1), dark], items).status_code == 201
    cases: list[tuple[dict[str, list[str]], list[str]]] = [
        ({"warnings": ["too_dark", "blurred"]}, ["dark"]),
        ({"warnings": ["not_person_shaped"]}, []),
        ({"exclude_warnings": ["too_dark"]}, ["fine"]),
        ({"exclude_warnings": ["not_person_shaped"]}, ["dark", "fine"]),
        ({"warnings": [], "exclude_warnings": []}, ["dark", "fine"]),
    ]
    for where, expected in cases:
        hits = search(client, gallery, [crop(1)], filter=where).json()["hits"]
        assert sorted(hit["item"]["id"] for hit in hits) == expected
    answer = search(client, gallery, [crop(1)], filter={"warnings": ["ugly"]})
    assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "query.filter.warnings[0]"
    address = f"/v1/galleries/{gallery}/items"
    listed = client.get(address, params={"warning": ["too_dark", "blurred"]}).json()["items"]
    assert [item["id"] for item in listed] == ["dark"]
    assert client.delete(address, params={"warning": "too_dark"}).json()["deleted"] == 1
    assert [item["id"] for item in client.get(address).json()["items"]] == ["fine"]
