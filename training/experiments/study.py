"""A study on disk: its plan, and for every row and seed the results and logs of the networks trained for it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from training.data.sources import Source
from training.evaluation.result import RESULTS, Result
from training.files import write_atomically

__all__ = [
    "PLAN",
    "TABLE",
    "Changes",
    "Plan",
    "RowResults",
    "collect",
    "read_plan",
    "read_study",
    "row_folder",
    "row_runs",
]

PLAN, TABLE = "plan.yaml", "table.md"
_LOGS = ("config.yaml", "training.csv", "validation.csv")

_EVALUATE = AliasChoices("evaluate", "judge")  # the latter in files of earlier versions

Changes = dict[str, Any]
"""Values to lay over a configuration by dotted key, as ``vireid train --set`` does."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Plan(_Part):
    """What is varied, and on what it is result_files beside the identities kept out of training."""

    config: str
    """The configuration that rows start from: a file, or METHOD/NAME of those in the package."""
    rows: Annotated[dict[str, Changes], Field(min_length=1)]
    """By name; ``config`` among a row's changes starts it from another configuration. Gains are over the first."""
    folds: Annotated[tuple[Changes, ...], Field(min_length=1)] = ({},)
    """A row has a network for each of them; real pairs are then result_files by the one that left them out."""
    evaluate: tuple[Source, ...] = Field(default=(), validation_alias=_EVALUATE)
    """Pairs are result_files twice: as they are, and with infrared mirrored and re-cropped."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        folders = [row_folder(row) for row in self.rows]
        if len(set(folders)) < len(folders) or not all(folders):
            raise ValueError(f"rows need names that differ in letters and digits, found {list(self.rows)}")
        return self

    def write(self, path: Path) -> None:
        """Write it as YAML, for :func:`read_plan`."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True), "utf-8")


class RowResults(_Part):
    """The results of one row and seed, and what they hold for."""

    checkpoints: tuple[str, ...]
    evaluate: tuple[Source, ...] = Field(validation_alias=_EVALUATE)
    results: tuple[Result, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds something else.
        """
        stored = json.loads(path.read_text("utf-8"))
        common = stored.pop("common", {})
        return cls.model_validate(stored | {"results": [common | result for result in stored["results"]]})

    def write(self, path: Path) -> None:
        """Write the file in one step; what all results say alike (training, machine, …) stands there once."""
        stored = self.model_dump(mode="json")
        results = stored["results"]
        common = {k: v for k, v in results[0].items() if all(r[k] == v for r in results)} if results else {}
        stored["common"] = common
        stored["results"] = [{k: v for k, v in result.items() if k not in common} for result in results]
        write_atomically(path, (json.dumps(stored, separators=(",", ":")) + "\n").encode())


def read_plan(path: Path) -> Plan:
    """Read a plan from YAML.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not YAML, or not a plan; the message says what is wrong.
    """
    try:
        return Plan.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error


def row_folder(row: str) -> str:
    """A row's name in the file system."""
    return re.sub(r"[^a-z0-9]+", "-", row.lower()).strip("-")


def read_study(study: Path) -> dict[str, list[Result]]:
    """Every result by row, in the order of the plan; a row that has none yet is left out.

    Raises:
        OSError: there is no plan, or a file cannot be read.
        ValueError: a file is not as it should be.
    """
    found = {
        row: [result for file in _result_files(study, row) for result in RowResults.read(file).results]
        for row in read_plan(study / PLAN).rows
    }
    return {row: results for row, results in found.items() if results}


def row_runs(study: Path, row: str) -> list[Path]:
    """Return the folders of a row's evaluated runs: one for each seed, or for each seed and fold."""
    return [
        log.parent for file in _result_files(study, row) for log in sorted(file.with_suffix("").rglob("training.csv"))
    ]


def collect(source: Path, out: Path) -> list[Path]:
    """Copy what a study or a single run says of itself, without weights; return the files written.

    Of a study: its plan, and of every result_files run results and logs. Of a run: logs and results. What else is in
    ``out`` stays there.

    Raises:
        FileNotFoundError: ``source`` is neither.
        OSError: a file cannot be read or written.
        ValueError: a file is not as it should be.
    """
    if (source / PLAN).is_file():
        rows = list(read_plan(source / PLAN).rows)
        result_files = [file for row in rows for file in _result_files(source, row)]
        files = [source / PLAN, *(run / log for row in rows for run in row_runs(source, row) for log in _LOGS)]
    elif (source / "training.csv").is_file():
        result_files, files = [], [source / name for name in (*_LOGS, RESULTS)]
    else:
        raise FileNotFoundError(f"{source}: expected a study with {PLAN} or a run with training.csv")
    written = []
    for file in [
        *result_files,
        *(file for file in files if file.is_file()),
    ]:  # validation.csv is optional
        copy = out / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file in result_files:
            RowResults.read(file).write(copy)
        else:
            shutil.copyfile(file, copy)
        written.append(copy)
    return written


def _result_files(study: Path, row: str) -> list[Path]:
    files = (study / row_folder(row)).glob("seed-*.json")
    return sorted(files, key=lambda file: int(file.stem.removeprefix("seed-")))
