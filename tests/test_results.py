"""RESULTS.md says what the result files say, and the zoo's cards what the zoo's results say."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.card import Card
from training.evaluation.table import markdown
from training.release import read_results
from training.reporting import CURVES, Report
from training.study import PLAN

ROOT = Path(__file__).resolve().parents[1]
ZOO = sorted(path.parent for path in (ROOT / "models" / "zoo").glob("*/card.json"))


@pytest.mark.parametrize("folder", ZOO, ids=lambda folder: folder.name)
def test_the_table_of_a_model_is_the_one_its_results_give(folder: Path) -> None:
    results = read_results(folder)
    assert results
    assert markdown(results, mixed=True).strip() in (ROOT / "RESULTS.md").read_text("utf-8")


@pytest.mark.parametrize("folder", ZOO, ids=lambda folder: folder.name)
def test_the_results_beside_a_card_were_measured_on_its_weights(folder: Path) -> None:
    card = Card.read(folder / "card.json")
    assert {checkpoint for result in read_results(folder) for checkpoint in result.model.checkpoints} == {
        card.fingerprint
    }


def test_the_zoo_stays_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "models" / "zoo").rglob("*") if path.is_file()) < 80e6


def test_the_tables_between_markers_are_those_that_the_results_give() -> None:
    report = Report(ROOT / "RESULTS.md")
    assert report.rendered() == report.file.read_text("utf-8"), "run `vireid results render`"


def test_the_pictures_of_a_study_are_there_and_nothing_kept_of_it_is_large() -> None:
    kept = ROOT / "results"
    assert all((plan.parent / CURVES).is_file() for plan in kept.rglob(PLAN))
    assert sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) < 3e6
