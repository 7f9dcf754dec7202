"""Ablation: the table has the results of the runs, and finished work is not repeated."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import training.experiments.ablation
from models.card import Modality
from tests.drawing import draw_person, write_people
from training.checkpoint import load_trained
from training.config import CONFIGS, find_config, read_config
from training.experiments.ablation import ablate
from training.experiments.study import TABLE, Plan, read_plan
from training.methods import build_method
from vireid.cli import app

SHIPPED = sorted(CONFIGS.glob("*/ablation.yaml"))
SIZE = (48, 24)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows over drawn people and drawn pairs of them."""
    root = tmp_path_factory.mktemp("ablation")
    write_people(root / "people", range(12), images=2, size=SIZE)
    for modality in Modality:
        (root / "pairs" / modality).mkdir(parents=True)
        for number in range(8):
            image = Image.fromarray(draw_person(number, modality, size=SIZE))
            image.save(root / "pairs" / modality / f"{number:04d}_1.png")
    config = {
        "backbone": "test_resnet",
        "data": [{"kind": "folder", "root": str(root / "people"), "name": "people", "group_pattern": "(.+)"}],
        "input": {"height": SIZE[0], "width": SIZE[1]},
        "batch": {"identities": 2, "images": 2},
        "schedule": {"kind": "cosine", "warmup_epochs": 0},
        "epochs": 1,
        "validation": {"share": 0.4, "seed": 1},
        "workers": 0,
    }
    rows: dict[str, Any] = {
        "base": {},
        "+ t": {"method": "mtrl", "batch.streams": ["visible", "transition", "infrared"]},
    }
    data_sets = [{"kind": "pairs", "root": str(root / "pairs"), "name": "pairs"}]
    (root / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    described = {"config": str(root / "config.yaml"), "rows": rows, "evaluate": data_sets}
    (root / "plan.yaml").write_text(yaml.safe_dump(described), "utf-8")
    return root / "plan.yaml"


def vireid(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code, done.output
    return done.output


def changed(plan: Path, **changes: Any) -> Plan:
    return Plan.model_validate(yaml.safe_load(plan.read_text("utf-8")) | changes)


def cells(table: str, heading: str, row: str) -> list[str]:
    section = table.split(f"### {heading}\n")[1].split("\n### ")[0]
    (line,) = [line for line in section.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_mean_and_deviation_of_the_runs_and_finished_work_is_not_repeated(
    plan: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("ablate", str(plan), "--out", str(out), "--cache", str(tmp_path / "cache"))
    words = (*words, "--set", "optimiser.learning_rate=0.01")
    shown = vireid(*words, "--seeds", "0,1", "--row", "base")
    table = (out / TABLE).read_text("utf-8")
    assert table in shown
    headings = ["people, held-out identities", "pairs", "pairs, mirrored and re-cropped"]
    assert re.findall("^### (.+)$", table, re.MULTILINE) == headings
    runs = [json.loads((out / "base" / f"seed-{seed}.json").read_text("utf-8")) for seed in (0, 1)]
    for heading in headings:
        expected = []
        crossing = ("vis_to_vis",) if heading.startswith("people") else ()  # people were seen by two visible cameras
        for direction in ("ir_to_vis", "vis_to_ir", *crossing):
            found = [
                result
                for run in runs
                for result in run["results"]
                if result["data"]["name"] == heading and result["protocol"]["direction"] == direction
            ]
            assert len(found) == 2
            for metric in ("rank1", "map"):
                values = [100 * result["metrics"][metric]["mean"] for result in found]
                expected.append(f"{fmean(values):.2f} ± {stdev(values):.2f}")
        assert cells(table, heading, "base") == ["base", "0, 1", *expected]
    trained = load_trained(out / "base" / "seed-1" / "model.pt")
    assert (trained.config.seed, trained.config.optimiser.learning_rate) == (1, 0.01)
    assert "unpublished details are ours" not in table

    written = {path: path.stat().st_mtime_ns for path in (out / "base").rglob("*.*") if path.suffix in (".pt", ".json")}
    assert len(written) == 6
    vireid(*words)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    table = (out / TABLE).read_text("utf-8")
    assert [cells(table, "pairs", row)[1] for row in ("base", "+ t")] == ["0", "0"]
    assert "unpublished details are ours" in table


def test_with_folds_a_pair_is_evaluated_by_the_network_that_left_out_its_frame(plan: Path, tmp_path: Path) -> None:
    leave_out = {"pairs": str(plan.parent / "pairs"), "folds": 2}
    folds = [{"data.0.leave_out": leave_out | {"fold": fold}} for fold in range(2)]
    table = ablate(
        changed(plan, rows={"base": {}}, folds=folds),
        tmp_path / "out",
        seeds=[0],
        overrides=["validation.share=0"],
        cache=tmp_path / "cache",
        command="",
    )
    seen = [
        set(load_trained(tmp_path / "out" / "base" / "seed-0" / f"fold-{fold}" / "model.pt").labels) for fold in (0, 1)
    ]
    frames = {f"{number:04d}" for number in range(8)}
    assert seen[0] & seen[1] & frames == set()
    assert (seen[0] | seen[1]) >= frames
    assert cells(table, "pairs, mirrored and re-cropped, 2 folds of frames, own fold", "base")[:2] == ["base", "0"]


def test_an_invalid_row_is_reported_before_training(plan: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"seeds": [0], "cache": tmp_path / "cache", "command": ""}
    bad = changed(plan, rows={"good": {}, "bad": {"options.depth": 3}})
    with pytest.raises(ValueError, match=r"(?s)row 'bad': .*unknown key 'depth'") as raised:
        ablate(bad, tmp_path / "out", **settings)
    assert "good" not in str(raised.value)
    with pytest.raises(ValueError, match=r"unknown rows \['worse'\]: expected some of \['good', 'bad'\]"):
        ablate(bad, tmp_path / "out", only=["worse"], **settings)
    with pytest.raises(ValueError, match="seed"):
        ablate(bad, tmp_path / "out", **settings | {"seeds": []})
    assert not (tmp_path / "out").exists()


def test_rows_with_the_same_folder_are_rejected(plan: Path) -> None:
    with pytest.raises(ValueError, match="differ in letters"):
        changed(plan, rows={"+ L_mtc": {}, "l mtc": {}})


def test_invalid_seeds_and_a_missing_plan_are_errors(plan: Path, tmp_path: Path) -> None:
    assert "expected numbers" in vireid("ablate", str(plan), "--out", str(tmp_path), "--seeds", "0 1", code=2)
    assert "nothing" in vireid("ablate", "nothing", "--out", str(tmp_path), code=2)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_row_of_a_packaged_plan_is_valid_and_has_the_streams_of_its_method(path: Path) -> None:
    plan = read_plan(path)
    assert plan.evaluate
    for row in plan.rows:
        for fold in range(len(plan.folds)):
            config = training.experiments.ablation._configs(plan, row, 7, [])[fold]
            assert config.seed == 7
            assert build_method(config.method, config.options).streams <= set(config.batch.streams), row


def test_a_configuration_is_found_by_name_unless_a_file_has_that_name(tmp_path: Path) -> None:
    assert read_config(find_config("mtrl/light")).method == "mtrl"
    own = tmp_path / "own.yaml"
    own.write_text("data: []", "utf-8")
    assert find_config(str(own)) == own
    with pytest.raises(FileNotFoundError, match="no configuration 'no/such'"):
        find_config("no/such")
