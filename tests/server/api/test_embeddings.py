from __future__ import annotations

import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from models.card import Modality
from tests.server.api.test_search import expected_rate, vector
from tests.server.calls import check_problem
from tests.server.image_files import TEXT, crop, encode
from tests.server.stub_model import DIMENSION

IMAGES = [crop(1, Modality.VISIBLE), crop(2, Modality.INFRARED), crop(3, Modality.VISIBLE)]
MODALITIES = [Modality.VISIBLE, Modality.INFRARED, Modality.VISIBLE]


def post(client: TestClient, images: list[bytes], **data: object):  # type: ignore[no-untyped-def]
    return client.post("/v1/embeddings", files=[("images", image) for image in images], data=data)


def test_embeddings_equal_those_of_the_model_in_order(client: TestClient) -> None:
    answer = post(client, IMAGES).json()
    assert (answer["model"], answer["dimension"], answer["errors"]) == ("stub", DIMENSION, [])
    assert [row["index"] for row in answer["embeddings"]] == [0, 1, 2]
    assert [row["modality"] for row in answer["embeddings"]] == [str(modality) for modality in MODALITIES]
    for row, image, modality in zip(answer["embeddings"], IMAGES, MODALITIES, strict=True):
        np.testing.assert_allclose(row["vector"], vector(image, modality), atol=1e-5)


def test_stated_modality_takes_precedence_over_detection(client: TestClient) -> None:
    row = post(client, [crop(1, Modality.VISIBLE)], modality="infrared").json()["embeddings"][0]
    assert row["modality"] == "infrared"
    np.testing.assert_allclose(row["vector"], vector(crop(1, Modality.VISIBLE), Modality.INFRARED), atol=1e-5)


def test_array_response_holds_the_same_embeddings(client: TestClient) -> None:
    files = [("images", image) for image in IMAGES]
    answer = client.post("/v1/embeddings", files=files, headers={"Accept": "application/x-npy"})
    assert answer.headers["content-type"] == "application/x-npy"
    array = np.load(io.BytesIO(answer.content))
    assert (array.dtype, array.shape) == (np.float32, (3, DIMENSION))
    as_json = np.array([row["vector"] for row in post(client, IMAGES).json()["embeddings"]], np.float32)
    np.testing.assert_allclose(array, as_json, atol=1e-6)


def test_invalid_image_fails_only_itself_except_in_an_array_response(client: TestClient) -> None:
    answer = post(client, [crop(1), TEXT, crop(2)])
    assert answer.status_code == 207
    assert [row["index"] for row in answer.json()["embeddings"]] == [0, 2]
    assert [(row["index"], row["error"]["status"]) for row in answer.json()["errors"]] == [(1, 415)]
    files = [("images", crop(1)), ("images", TEXT)]
    array = client.post("/v1/embeddings", files=files, headers={"Accept": "application/x-npy"})
    assert check_problem(array, 415, "image-type-unsupported")["errors"][0]["field"] == "images[1]"


def test_comparison_returns_score_rate_and_thresholds(client: TestClient) -> None:
    images = [crop(4, Modality.VISIBLE), crop(4, Modality.INFRARED, seed=1)]
    answer = client.post("/v1/compare", files=[("images", image) for image in images]).json()
    score = float(vector(images[0], Modality.VISIBLE) @ vector(images[1], Modality.INFRARED))
    assert answer["modality"] == ["visible", "infrared"]
    assert answer["score"] == pytest.approx(score, abs=1e-5)
    assert answer["false_match_rate"] == pytest.approx(expected_rate(score), rel=1e-3)
    assert answer["same_at"] == {"0.01": score >= 0, "0.001": score >= 0.5, "0.0001": score >= 1}


@pytest.mark.parametrize("count", [1, 3])
def test_comparison_requires_two_images(client: TestClient, count: int) -> None:
    answer = client.post("/v1/compare", files=[("images", crop(1))] * count)
    assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == "images"


def test_unknown_model_is_named(client: TestClient) -> None:
    assert "stub" in check_problem(post(client, [crop(1)], model="other"), 404, "model-not-found")["detail"]


def test_tinted_infrared_crop_is_embedded_as_grey(client: TestClient) -> None:
    """Training makes infrared grey before resizing; what is served must be what was trained."""
    tinted = np.array(Image.open(io.BytesIO(crop(3, Modality.INFRARED))).convert("RGB"))
    tinted[..., 2] = tinted[..., 2] // 2
    grey = Image.fromarray(tinted).convert("L")
    vectors = [
        client.post(
            "/v1/embeddings",
            files=[("images", ("crop.png", encode(image)))],
            data={"modality": "infrared"},
        ).json()["embeddings"][0]["vector"]
        for image in (tinted, grey)
    ]
    assert vectors[0] == vectors[1]
