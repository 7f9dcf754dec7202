"""False match rates of the API: which calibration they are from, and that they promise no more than was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from models.card import Calibration, Card, DataSource, Modality
from server.api.calibration import Calibrations, score_for, score_for_false_hits
from server.domain.validation import InvalidRequest
from tests.server.conftest import Start
from tests.server.stub_model import DIMENSION, card, write_model

VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED
PAIRS = 400


def calibration(
    query: Modality = VISIBLE, gallery: Modality = INFRARED, *, pairs: int = PAIRS, **changes: Any
) -> Calibration:
    """Return a calibration from rate 1 at score 0 to 1/pairs at score 0.5."""
    fields: dict[str, Any] = {
        "query": query,
        "gallery": gallery,
        "data": "street",
        "real": True,
        "impostor_pairs": pairs,
        "identities": 21,
        "rates": (1.0, 0.1, 1 / pairs),
        "scores": (0.0, 0.25, 0.5),
        "intervals": ((0.9, 1.0), (0.05, 0.2), (0.0, 4 / pairs)),
        "thresholds": {"0.01": None, "0.001": None, "0.0001": None},
    }
    return Calibration(**{**fields, **changes})


def with_calibrations(*calibrations: Calibration, **changes: Any) -> Card:
    return card("m").model_copy(update={"calibrations": calibrations, **changes})


def unit(score: float) -> list[float]:
    """Return a unit vector that has this cosine with ``unit(1)``."""
    vector = np.zeros(DIMENSION)
    vector[:2] = score, np.sqrt(1 - score**2)
    return vector.tolist()


@pytest.fixture
def served(start: Start, tmp_path: Path) -> Any:
    """A server whose model is calibrated for visible → infrared only, with items of known scores."""
    write_model(tmp_path / "zoo" / "standin", calibrations=[calibration()])
    with start(model_dir=tmp_path / "zoo") as client:
        client.post("/v1/galleries", json={"name": "g"})
        items = [(f"i{n}", INFRARED, score, {}) for n, score in enumerate((0.9, 0.45, 0.25, 0.1))]
        items += [("v", VISIBLE, 0.8, {}), ("d", INFRARED, 0.85, {"source": "drawn"})]
        for id, modality, score, attributes in items:
            entry = {"id": id, "vector": unit(score), "modality": modality, "attributes": attributes}
            answer = client.post("/v1/galleries/g/vectors", json={"items": [entry]})
            assert answer.status_code == 201, answer.text
        yield client


def search(client: TestClient, modality: Modality = VISIBLE, **query: Any) -> Any:
    body = {"vector": unit(1), "modality": modality, "query": query}
    return client.post("/v1/galleries/g/search", json=body)


def test_a_search_says_which_calibration_its_rates_are_from(served: TestClient) -> None:
    answer = search(served, filter={"modality": "opposite", "exclude_attributes": {"source": "drawn"}}).json()
    assert answer["calibration"] == {
        "data": "street",
        "real": True,
        "query": "visible",
        "gallery": "infrared",
        "impostor_pairs": PAIRS,
        "identities": 21,
        "interval": 0.95,
        "source": "model",
        "version": None,
    }
    assert answer["calibrations"] == {"infrared": answer["calibration"]}
    best, second, third, fourth = answer["hits"]
    assert (best["false_match_rate"], best["below"]) == (1 / PAIRS, True)
    assert best["false_match_rate_interval"] == [0.0, 4 / PAIRS]
    assert best["expected_false_hits"] == pytest.approx(4 / PAIRS)
    assert 1 / PAIRS < second["false_match_rate"] < 0.1
    assert third["false_match_rate"] == pytest.approx(0.1, rel=1e-4)
    assert third["expected_false_hits"] == pytest.approx(0.4, rel=1e-4)
    low, high = fourth["false_match_rate_interval"]
    assert low <= fourth["false_match_rate"] <= high
    assert not any(hit["below"] for hit in answer["hits"][1:])


def test_hits_without_a_fitting_calibration_have_no_rate(served: TestClient) -> None:
    hits = {hit["item"]["id"]: hit for hit in search(served).json()["hits"]}
    for id in ("v", "d"):  # visible items are not calibrated, and drawings are like no calibration data
        assert hits[id]["false_match_rate"] is hits[id]["expected_false_hits"] is None
        assert not hits[id]["below"]
    assert hits["i0"]["expected_false_hits"] == pytest.approx(6 / PAIRS)
    answer = search(served, INFRARED).json()
    assert answer["calibration"] is None
    assert {hit["false_match_rate"] for hit in answer["hits"]} == {None}
    drawn = search(served, filter={"attributes": {"source": "drawn"}}).json()
    assert drawn["calibration"] is drawn["hits"][0]["false_match_rate"] is None


def test_groups_have_the_rates_of_their_items(served: TestClient) -> None:
    for group in search(served, group_by="identity").json()["groups"]:
        for hit in group["hits"]:
            calibrated = hit["item"]["id"].startswith("i")
            assert (hit["false_match_rate"] is not None) == calibrated


@pytest.mark.parametrize("most", [0.1, 0.5, 2, 5, 1000])
def test_max_expected_false_hits_excludes_hits_with_more(served: TestClient, most: float) -> None:
    where = {"modality": "opposite", "exclude_attributes": {"source": "drawn"}}
    every = search(served, filter=where).json()["hits"]
    kept = search(served, filter=where, max_expected_false_hits=most).json()["hits"]
    assert kept == [hit for hit in every if hit["expected_false_hits"] <= most * (1 + 1e-6)]


@pytest.mark.parametrize("limit", ["max_false_match_rate", "max_expected_false_hits"])
def test_a_limit_that_no_calibration_supports_is_refused_with_the_reason(served: TestClient, limit: str) -> None:
    for modality, value, where, reason in (
        (VISIBLE, 0.5, {}, "filter on one modality"),
        (INFRARED, 0.5, {"modality": "opposite"}, "needs a calibration infrared → visible"),
        (VISIBLE, 1e-3, {"modality": "opposite"}, "the calibration has 400 impostor pairs"),
    ):
        answer = search(served, modality, filter=where, **{limit: value})
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["field"] == f"query.{limit}"
        assert reason in error["detail"]


def test_a_real_calibration_is_preferred_to_a_translated_one() -> None:
    translated = calibration(data="shop", real=False)
    found = Calibrations(with_calibrations(translated, calibration())).find(VISIBLE, INFRARED)
    assert found is not None
    assert (found.used.data, found.used.real) == ("street", True)
    only = Calibrations(with_calibrations(translated)).find(VISIBLE, INFRARED)
    assert only is not None
    assert (only.used.data, only.used.real) == ("shop (infrared translated from visible crops)", False)


@pytest.mark.parametrize(
    ("remark", "word"),
    [(" ".join(("9 infrared images", "imitated", "from visible ones")), "translated"), ("", "not recorded")],
)
def test_old_calibrations_with_infrared_are_never_presented_as_real(remark: str, word: str) -> None:
    source = DataSource(name="shop", licence="none", visible=9, infrared=9, remark=remark)
    training = card("m").training.model_copy(update={"data": (source,)})
    old: dict[str, Any] = {"data": "shop, held-out identities", "real": None, "identities": None, "intervals": ()}
    calibrations = [calibration(query, gallery, **old) for query in Modality for gallery in Modality]
    chosen = Calibrations(with_calibrations(*calibrations, training=training))
    for query in Modality:
        for gallery in Modality:
            found = chosen.find(query, gallery)
            assert found is not None
            assert found.used.real == (query is gallery is VISIBLE)
            assert (word in found.used.data) == (not found.used.real)
            assert (found.used.identities, found.used.interval) == (None, None)


def test_queries_of_both_modalities_have_no_calibration() -> None:
    assert Calibrations(card("m")).find(None, VISIBLE) is None


@given(
    pairs=st.integers(11, 10**7),
    score=st.floats(-1, 1),
    expected=st.floats(1e-6, 1e6),
    searched=st.integers(0, 10**7),
)
def test_no_rate_below_one_pair_is_ever_given(pairs: int, score: float, expected: float, searched: int) -> None:
    found = Calibrations(with_calibrations(calibration(pairs=pairs))).find(VISIBLE, INFRARED)
    assert found is not None
    estimate = found.estimate(score)
    assert estimate.rate >= 1 / pairs
    assert estimate.below == (score > 0.5)
    try:
        least = score_for_false_hits(found.calibration, expected, searched)
    except InvalidRequest:
        assert expected < searched / pairs
    else:
        assert found.estimate(least).rate * searched <= expected * (1 + 1e-6)
    with pytest.raises(InvalidRequest):
        score_for(found.calibration, 0.99 / pairs)
