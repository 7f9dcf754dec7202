"""Collected studies without weights, and reports of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner

from tests.training.evaluation.test_comparison import reaching
from training.environment import Environment
from training.evaluation.comparison import comparison
from training.evaluation.result import read_results, update_results
from training.experiments.report import CURVES, SCORES, Report
from training.experiments.study import PLAN, Plan, RowResults, collect, read_study, row_folder
from training.translation.comparison import TranslatorComparison
from training.translation.learning import Quality, TranslatorConfig
from vireid.cli import app

ROWS = {"baseline": ((40.0, 41.0), (3.0, 2.5)), "+ much": ((50.0, 51.0), (2.0, 1.5)), "not yet": ((), ())}
"""By row: the mAP of each seed, and the loss of each of two epochs."""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Write the files of an ablation of two rows with two seeds and a third row in training."""
    root = tmp_path / "runs" / "study"
    for row, (maps, losses) in ROWS.items():
        for seed, value in enumerate(maps):
            run = root / row_folder(row) / f"seed-{seed}"
            run.mkdir(parents=True)
            evaluated = RowResults(checkpoints=("0",), evaluate=(), results=tuple(reaching(value)))
            evaluated.write(run.with_suffix(".json"))
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
    report = root / "results" / "report" / "README.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("# Results\n\n" + "\n".join(blocks) + "\nThe end.\n", "utf-8")
    return report


def test_results_are_read_as_written_and_common_fields_are_stored_once(tmp_path: Path) -> None:
    results = tuple(reaching(40, other=(50.0,)))
    RowResults(checkpoints=("0",), evaluate=(), results=results).write(tmp_path / "seed-0.json")
    assert RowResults.read(tmp_path / "seed-0.json").results == results
    text = (tmp_path / "seed-0.json").read_text("utf-8")
    assert text.count('"libraries"') == 1
    assert text.count('"map"') == 2


def test_a_collected_study_has_the_same_results_without_weights(study: Path, tmp_path: Path) -> None:
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
    (result,) = reaching(40, other=())
    update_results(run, [result])
    (run / "validation.csv").unlink()
    collect(run, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert found == {"config.yaml", "training.csv", "results.json"}
    assert read_results(tmp_path / "out") == [result]


def test_a_folder_that_is_neither_is_named(tmp_path: Path) -> None:
    assert "expected a study with plan.yaml or a run" in vireid("results", "collect", tmp_path, "--out", "x", code=2)


def test_a_report_needs_only_collected_files(study: Path, tmp_path: Path) -> None:
    collect(study, tmp_path / "results" / "study")
    shutil.rmtree(tmp_path / "runs")
    report = report_on(tmp_path, "../study")
    said = vireid("results", "render", report)
    image = tmp_path / "results" / "study" / CURVES
    assert str(image) in said
    text = report.read_text("utf-8")
    assert comparison(read_study(tmp_path / "results" / "study")).strip() in text
    assert f"(../study/{CURVES})" in text
    assert "old" not in text
    assert text.startswith("# Results\n\n## ../study\n")
    assert text.endswith("\nThe end.\n")
    assert Report(report).rendered() == text

    drawn = "".join(ElementTree.fromstring(image.read_text("utf-8")).itertext())
    assert all(word in drawn for word in ("baseline", "+ much", "training loss", "mAP, visible to infrared"))
    scores = "".join(ElementTree.fromstring(image.with_name(SCORES).read_text("utf-8")).itertext())
    assert all(word in scores for word in ("baseline", "+ much", "mAP in percent", "infrared → visible"))
    assert f"(../study/{SCORES})" in text
    first = image.read_bytes()
    vireid("results", "render", report)
    assert image.read_bytes() == first


def test_a_manually_changed_number_is_detected(study: Path, tmp_path: Path) -> None:
    collect(study, tmp_path / "results" / "study")
    report = report_on(tmp_path, "../study")
    Report(report).render()
    report.write_text(report.read_text("utf-8").replace("50.50", "60.50"), "utf-8")
    assert Report(report).rendered() != report.read_text("utf-8")


def test_a_study_without_a_block_and_a_block_without_results_are_named(study: Path, tmp_path: Path) -> None:
    collect(study, tmp_path / "results" / "study")
    report = report_on(tmp_path)
    said = vireid("results", "render", report, code=2)
    assert "<!-- begin: ../study -->" in said
    report = report_on(tmp_path, "../study", "../nothing")
    before = report.read_text("utf-8")
    assert "nothing: expected" in vireid("results", "render", report, code=2)
    assert report.read_text("utf-8") == before
    assert not (tmp_path / "results" / "study" / CURVES).exists()


def test_exported_models_and_translator_comparisons_have_tables(tmp_path: Path) -> None:
    update_results(tmp_path / "zoo" / "one", reaching(40, other=()))
    TranslatorComparison(
        translator="0" * 64,
        learning=TranslatorConfig(frames=(Path("frames"),), without=frozenset({"a", "b"}), steps=5),
        qualities={"channel": Quality(8.5, 0.1, 7), "learnt": Quality(9.25, 0.2, 7)},
        command="vireid translator compare t.pt",
        environment=Environment.here("cpu", "fp32"),
    ).write(tmp_path / "results" / "translator")
    report = report_on(tmp_path, "../../zoo/one", "../translator")
    Report(report).render()
    text = report.read_text("utf-8")
    assert "| baseline | resnet50 | drawn |" in text
    assert "| learnt | 9.25 | 0.200 | 7 |" in text
    assert "2 frames were excluded" in text
    assert "Trained for 5 steps" in text


def test_ablate_writes_a_plan_that_is_read_unchanged(tmp_path: Path) -> None:
    plan = Plan.model_validate(
        {
            "config": "baseline/light",
            "rows": {"base": {}, "+ t": {"method": "mtrl", "batch.streams": ["visible", "transition"]}},
            "evaluate": [{"kind": "pairs", "root": "datasets/pairs", "name": "pairs"}],
        }
    )
    plan.write(tmp_path / PLAN)
    assert Plan.model_validate(yaml.safe_load((tmp_path / PLAN).read_text("utf-8"))) == plan
