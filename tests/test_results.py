"""The report shows the result files, and the cards of the zoo show the zoo's results."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from pathlib import Path

import onnx
import pytest

from models.card import Card
from training.evaluation.result import read_results
from training.evaluation.table import markdown
from training.experiments.report import CURVES, SCORES, Report
from training.experiments.study import PLAN
from training.export.onnx import IR_VERSION

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "results" / "report" / "README.md"
ZOO = sorted(path.parent for path in (ROOT / "models" / "zoo").glob("*/card.json"))


@pytest.mark.parametrize("folder", ZOO, ids=lambda folder: folder.name)
def test_report_shows_the_results_of_every_model(folder: Path) -> None:
    results = read_results(folder)
    assert results
    assert markdown(results, mixed=True).strip() in REPORT.read_text("utf-8")


@pytest.mark.parametrize("folder", ZOO, ids=lambda folder: folder.name)
def test_results_of_a_model_were_measured_on_the_weights_of_its_card(folder: Path) -> None:
    card = Card.read(folder / "card.json")
    assert {checkpoint for result in read_results(folder) for checkpoint in result.model.checkpoints} == {
        card.fingerprint
    }


@pytest.mark.parametrize("folder", ZOO, ids=lambda folder: folder.name)
def test_every_graph_of_a_model_can_be_read_by_old_runtimes_and_is_what_the_card_says(folder: Path) -> None:
    digests = {variant.file: variant.sha256 for variant in Card.read(folder / "card.json").precisions.values()}
    for file in folder.glob("*.onnx"):
        assert onnx.load(str(file), load_external_data=False).ir_version == IR_VERSION
        assert sha256(file.read_bytes()).hexdigest() == digests[file.name]


def test_the_zoo_stays_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "models" / "zoo").rglob("*") if path.is_file()) < 80e6


def test_report_is_up_to_date() -> None:
    report = Report(REPORT)
    assert report.rendered() == report.file.read_text("utf-8"), "run `vireid results render`"


def test_studies_have_their_charts_and_stay_small() -> None:
    results = ROOT / "results"
    assert all((plan.parent / CURVES).is_file() for plan in results.rglob(PLAN))
    assert (results / "methods" / SCORES).is_file()
    assert sum(path.stat().st_size for path in results.rglob("*") if path.is_file()) < 3e6


def test_tracked_file_names_are_shorter_than_100_characters() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in listed.splitlines() if len(name) >= 100] == []
