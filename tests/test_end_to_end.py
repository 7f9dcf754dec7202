"""From drawn crops through training, export and server to the right person over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient
from typer.testing import CliRunner

from models.card import Card, Modality
from server.app import create_app
from server.settings import Settings
from tests.drawing import write_people
from vireid.cli import app

PEOPLE = range(12)


def vireid(*words: str) -> str:
    """Run a command and return its standard output."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny network, trained on drawn people, evaluated and exported by the commands of the README."""
    root = tmp_path_factory.mktemp("end_to_end")
    write_people(root / "crops", PEOPLE, images=4, size=(64, 32))
    config = {
        "method": "baseline",
        "backbone": "test_resnet",
        "data": [{"kind": "folder", "root": str(root / "crops"), "name": "drawn people", "licence": "Apache-2.0"}],
        "input": {"height": 64, "width": 32, "resize": "bilinear"},
        "batch": {"identities": 6, "images": 2},
        "augmentation": {"erasing": 0.0},
        "optimiser": {"kind": "adamw", "learning_rate": 3e-3, "pretrained_factor": 1.0},
        "schedule": {"kind": "cosine", "warmup_epochs": 0},
        "epochs": 36,
        "validation": {"share": 0.25, "every": 36, "seed": 1},
        "workers": 0,
    }
    (root / "drawn.yaml").write_text(yaml.safe_dump(config))
    run, cache = root / "run", str(root / "cache")
    vireid("train", str(root / "drawn.yaml"), "--out", str(run), "--cache", cache)
    vireid("evaluate", str(run), "--cache", cache)
    vireid("export", str(run), "--name", "drawn", "--out", str(root / "zoo" / "drawn"))
    return root


def test_the_card_holds_training_data_evaluations_and_calibrations(released: Path) -> None:
    card = Card.read(released / "zoo" / "drawn" / "card.json")
    assert card.training.data[0].name == "drawn people"
    assert {evaluation.protocol_id for evaluation in card.evaluations} == {
        "custom-ir_to_vis-same_id_same_cam",
        "custom-vis_to_ir-same_id_same_cam",
        "custom-vis_to_vis-same_id_same_cam",
    }
    for query in Modality:
        for gallery in Modality:
            calibration = card.calibration(query, gallery)
            assert calibration is not None
            assert "held-out" in calibration.data


def test_an_exported_model_evaluates_like_its_network(released: Path) -> None:
    vireid("evaluate", str(released / "zoo" / "drawn"), "--cache", str(released / "cache"))
    both = (json.loads((released / folder / "results.json").read_text()) for folder in ("run", "zoo/drawn"))
    for ours, exported in zip(*both, strict=True):
        assert exported["protocol_id"] == ours["protocol_id"]
        for name, measure in ours["metrics"].items():
            assert exported["metrics"][name]["trials"] == pytest.approx(measure["trials"])


def test_the_served_model_finds_the_right_person_across_modalities(released: Path, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", model_dir=released / "zoo", device="cpu", threads=1)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        client.app.state.service.galleries.loader.loading.result(60)  # type: ignore[attr-defined]
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/galleries", json={"name": "night", "model": "drawn"}).status_code == 201
        crops = sorted((released / "crops" / "infrared").rglob("*.png"))
        metadata = [{"id": p.name, "identity": p.parent.name, "modality": "infrared"} for p in crops]
        added = client.post(
            "/v1/galleries/night/items",
            files=[("images", (p.name, p.read_bytes(), "image/png")) for p in crops],
            data={"items": json.dumps(metadata)},
        )
        assert added.status_code == 201, added.text
        assert added.json()["added"] == len(crops)
        right = 0
        queries = sorted((released / "crops" / "visible").rglob("*.png"))
        for query in queries:
            found = client.post(
                "/v1/galleries/night/search",
                files=[("images", (query.name, query.read_bytes(), "image/png"))],
                data={"query": json.dumps({"k": 3, "filter": {"modality": "opposite"}})},
            )
            assert found.status_code == 200, found.text
            answer = found.json()
            assert (answer["modality"], answer["searched"]) == (["visible"], len(crops))
            right += answer["hits"][0]["item"]["identity"] == query.parent.name
    assert right >= 0.6 * len(queries), f"{right} of {len(queries)} right; chance is 1 of {len(PEOPLE)}"
