"""A study kept without its weights says the same as before, and a report says what is kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner

from training.evaluation.comparison import comparison
from training.evaluation.environment import Environment
from training.evaluation.result import Result
from training.reporting import CURVES, Report
from training.study import PLAN, Judged, Plan, collect, read_study, row_folder
from training.translator.comparing import TranslatorComparison
from training.translator.learning import LearningConfig, Quality
from vireid.learning import app

from .evaluation.test_comparison import reaching

ROWS = {"baseline": ((40.0, 41.0), (3.0, 2.5)), "+ much": ((50.0, 51.0), (2.0, 1.5)), "not yet": ((), ())}
"""By row: the mAP of each seed, and the loss of each of two epochs."""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """What ``ablate`` leaves of two rows with two seeds, a third row still in training."""
    root = tmp_path / "runs" / "study"
    for row, (maps, losses) in ROWS.items():
        for seed, value in enumerate(maps):
            run = root / row_folder(row) / f"seed-{seed}"
            run.mkdir(parents=True)
            judged = Judged(checkpoints=("0",), judge=(), results=tuple(reaching(value)))
            judged.write(run.with_suffix(".json"))
            (run / "model.pt").write_bytes(bytes(100_000))
            (run / "tensorboard").mkdir()
            (run / "config.yaml").write_text(f"seed: {seed}\n")
            lines = [f"{epoch},{loss + seed}" for epoch, loss in enumerate(losses, 1)]
            (run / "training.csv").write_text("\n".join(["epoch,loss", *lines]) + "\n")
            (run / "validation.csv").write_text(f"epoch,drawn/visible_to_infrared/map\n0,0.1\n2,{value / 100}\n")
    unfinished = root / row_folder("not yet") / "seed-0"
    unfinished.mkdir(parents=True)
    (unfinished / "training.csv").write_text("epoch,loss\n1,9\n")
    Plan(config="baseline/light", rows={row: {} for row in ROWS}).write(root / PLAN)
    return root


def vireid(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def report_on(root: Path, *folders: str) -> Path:
    blocks = [f"## {folder}\n\n<!-- begin: {folder} -->\nold\n<!-- end: {folder} -->\n" for folder in folders]
    (root / "RESULTS.md").write_text("# Results\n\n" + "\n".join(blocks) + "\nThe end.\n", "utf-8")
    return root / "RESULTS.md"


def test_results_are_read_as_they_were_written_and_stand_in_the_file_once(tmp_path: Path) -> None:
    results = tuple(reaching(40, other=(50.0,)))
    Judged(checkpoints=("0",), judge=(), results=results).write(tmp_path / "seed-0.json")
    assert Judged.read(tmp_path / "seed-0.json").results == results
    text = (tmp_path / "seed-0.json").read_text("utf-8")
    assert text.count('"libraries"') == 1
    assert text.count('"map"') == 2


def test_what_is_collected_says_the_same_without_weights(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "study"
    said = vireid("results", "collect", study, "--out", out)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    logs = ("config.yaml", "training.csv", "validation.csv")
    runs = [f"{row}/seed-{seed}" for row in ("baseline", "much") for seed in (0, 1)]
    assert files == {PLAN, *(f"{run}.json" for run in runs), *(f"{run}/{log}" for run in runs for log in logs)}
    assert f"{len(files)} files" in said
    assert comparison(read_study(out)) == comparison(read_study(study))
    assert list(read_study(out)) == ["baseline", "+ much"]


def test_a_single_run_is_collected_with_its_results(study: Path, tmp_path: Path) -> None:
    run = study / "baseline" / "seed-1"
    (run / "results").mkdir()
    (result,) = reaching(40, other=())
    result.write(run / "results" / "one.json")
    (run / "validation.csv").unlink()
    collect(run, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert found == {"config.yaml", "training.csv", "results/one.json"}
    assert Result.read(tmp_path / "out" / "results" / "one.json") == result


def test_a_folder_that_is_neither_is_named(tmp_path: Path) -> None:
    assert "expected a study with plan.yaml or a run" in vireid("results", "collect", tmp_path, "--out", "x", code=2)


def test_a_report_is_made_of_what_was_collected_alone(study: Path, tmp_path: Path) -> None:
    collect(study, tmp_path / "results" / "study")
    shutil.rmtree(tmp_path / "runs")
    report = report_on(tmp_path, "results/study")
    said = vireid("results", "render", report)
    picture = tmp_path / "results" / "study" / CURVES
    assert str(picture) in said
    text = report.read_text("utf-8")
    assert comparison(read_study(tmp_path / "results" / "study")).strip() in text
    assert f"(results/study/{CURVES})" in text
    assert "old" not in text
    assert text.startswith("# Results\n\n## results/study\n")
    assert text.endswith("\nThe end.\n")
    assert Report(report).rendered() == text

    drawn = "".join(ElementTree.fromstring(picture.read_text("utf-8")).itertext())
    assert all(word in drawn for word in ("baseline", "+ much", "training loss", "mAP, visible to infrared"))
    first = picture.read_bytes()
    vireid("results", "render", report)
    assert picture.read_bytes() == first


def test_a_number_changed_by_hand_is_seen(study: Path, tmp_path: Path) -> None:
    collect(study, tmp_path / "results" / "study")
    report = report_on(tmp_path, "results/study")
    Report(report).render()
    report.write_text(report.read_text("utf-8").replace("50.50", "60.50"), "utf-8")
    assert Report(report).rendered() != report.read_text("utf-8")


def test_a_study_without_a_place_and_a_place_without_results_are_named(study: Path, tmp_path: Path) -> None:
    collect(study, tmp_path / "results" / "study")
    report = report_on(tmp_path)
    said = vireid("results", "render", report, code=2)
    assert "<!-- begin: results/study -->" in said
    report = report_on(tmp_path, "results/study", "results/nothing")
    before = report.read_text("utf-8")
    assert "results/nothing: expected" in vireid("results", "render", report, code=2)
    assert report.read_text("utf-8") == before
    assert not (tmp_path / "results" / "study" / CURVES).exists()


def test_an_exported_model_and_the_translations_have_their_tables_too(tmp_path: Path) -> None:
    (tmp_path / "zoo" / "one" / "results").mkdir(parents=True)
    reaching(40, other=())[0].write(tmp_path / "zoo" / "one" / "results" / "r.json")
    TranslatorComparison(
        translator="0" * 64,
        learning=LearningConfig(frames=(Path("frames"),), without=frozenset({"a", "b"}), steps=5),
        qualities={"channel": Quality(8.5, 0.1, 7), "learnt": Quality(9.25, 0.2, 7)},
        command="vireid translator compare t.pt",
        environment=Environment.here("cpu", "fp32"),
    ).write(tmp_path / "results" / "translator")
    report = report_on(tmp_path, "zoo/one", "results/translator")
    Report(report).render()
    text = report.read_text("utf-8")
    assert "| baseline | resnet50 | drawn |" in text
    assert "| learnt | 9.25 | 0.200 | 7 |" in text
    assert "2 frames took no part" in text
    assert "Learnt in 5 steps" in text


def test_ablate_leaves_a_plan_that_is_read_as_it_was(tmp_path: Path) -> None:
    plan = Plan.model_validate(
        {
            "config": "baseline/light",
            "rows": {"base": {}, "+ t": {"method": "mtrl", "batch.streams": ["visible", "transition"]}},
            "judge": [{"kind": "pairs", "root": "datasets/pairs", "name": "pairs"}],
        }
    )
    plan.write(tmp_path / PLAN)
    assert Plan.model_validate(yaml.safe_load((tmp_path / PLAN).read_text("utf-8"))) == plan
