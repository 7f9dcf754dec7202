"""A study on disk: its plan, and the results and logs of every row and seed."""

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
"""Values that replace those of a configuration by dotted key, like ``vireid train --set``."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Plan(_Part):
    """Variants of a configuration, and the data on which they are evaluated besides the held-out identities."""

    config: str
    """The base configuration of the rows: a file, or METHOD/NAME of a packaged one."""
    rows: Annotated[dict[str, Changes], Field(min_length=1)]
    """Changes by name of the row; ``config`` selects another base configuration. Gains are over the first row."""
    folds: Annotated[tuple[Changes, ...], Field(min_length=1)] = ({},)
    """Changes of each fold: a row has a network per fold; real pairs are evaluated by the one that left them out."""
    evaluate: tuple[Source, ...] = Field(default=(), validation_alias=_EVALUATE)
    """Data sets; pairs are evaluated twice: unchanged, and with infrared mirrored and re-cropped."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        folders = [row_folder(row) for row in self.rows]
        if len(set(folders)) < len(folders) or not all(folders):
            raise ValueError(f"expected row names that differ in letters and digits, found {list(self.rows)}")
        return self

    def write(self, path: Path) -> None:
        """Write the plan as YAML for :func:`read_plan`."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True), "utf-8")


class RowResults(_Part):
    """The results of one row and seed, with the weights and data that they belong to."""

    checkpoints: tuple[str, ...]
    evaluate: tuple[Source, ...] = Field(validation_alias=_EVALUATE)
    results: tuple[Result, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file written by :meth:`write`.

        Raises:
            OSError: the file cannot be read.
            ValueError: it has other contents.
        """
        stored = json.loads(path.read_text("utf-8"))
        common = stored.pop("common", {})
        return cls.model_validate(stored | {"results": [common | result for result in stored["results"]]})

    def write(self, path: Path) -> None:
        """Write the file atomically; fields that are equal in all results (training, machine, …) are stored once."""
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
        ValueError: it is not YAML or not a plan; the message says why.
    """
    try:
        return Plan.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error


def row_folder(row: str) -> str:
    """Return the folder name of a row."""
    return re.sub(r"[^a-z0-9]+", "-", row.lower()).strip("-")


def read_study(study: Path) -> dict[str, list[Result]]:
    """Read all results by row in the order of the plan; rows without results are omitted.

    Raises:
        OSError: there is no plan, or a file cannot be read.
        ValueError: a file is malformed.
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
    """Copy the plan, results and logs of a study or a single run without weights; return the written files.

    Of a study, only evaluated runs are copied. Other files in ``out`` are kept.

    Raises:
        FileNotFoundError: ``source`` is neither a study nor a run.
        OSError: a file cannot be read or written.
        ValueError: a file is malformed.
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
    for file in [*result_files, *filter(Path.is_file, files)]:  # validation.csv is optional
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
