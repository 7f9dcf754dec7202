"""Ablation: variants of a configuration, trained with several seeds and compared in one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from training.config import TrainingConfig, find_config, read_config
from training.data.sources import Folder, Pairs, Source
from training.evaluation.comparison import comparison
from training.evaluation.evaluator import evaluate_model, evaluation_set, held_out_sets
from training.evaluation.model_loader import LoadedModel, load_model
from training.evaluation.pooled_pairs import evaluate_pooled
from training.evaluation.result import Result
from training.experiments.study import PLAN, TABLE, Plan, RowResults, row_folder
from training.trainer import train

__all__ = ["ablate"]


def ablate(
    plan: Plan,
    out: Path,
    *,
    seeds: Sequence[int],
    only: Sequence[str] = (),
    overrides: Sequence[str] = (),
    cache: Path,
    command: str,
    console: Console | None = None,
) -> str:
    """Train and evaluate every row with every seed; return the table, which is also in ``OUT/table.md``.

    An interrupted ablation continues where it stopped: finished runs and evaluations are not repeated. All rows are run
    with one seed before the next seed.

    Args:
        out: folder for the plan, a folder ``ROW/seed-N`` for each run, and beside it ``seed-N.json`` with its results.
        only: names of the rows to run; empty: all.
        overrides: KEY=VALUE that is applied to every row.
        cache: folder for decoded crops.
        command: command line, stored with the networks.

    Raises:
        ValueError: a row is unknown or its configuration invalid (checked before training), or a run in ``out`` has
            another configuration.
        OSError: data or ``out`` cannot be read or written.
    """
    if unknown := sorted(set(only) - plan.rows.keys()):
        raise ValueError(f"unknown rows {unknown}: expected some of {list(plan.rows)}")
    if not seeds:
        raise ValueError("expected at least one seed, found none")
    chosen = [row for row in plan.rows if not only or row in only]
    configs = {(row, seed): _configs(plan, row, seed, overrides) for seed in seeds for row in chosen}
    results: dict[str, list[Result]] = {row: [] for row in chosen}
    out.mkdir(parents=True, exist_ok=True)
    plan.write(out / PLAN)
    table = ""
    for (row, seed), fold_configs in configs.items():
        folder = out / row_folder(row) / f"seed-{seed}"
        runs = [folder / f"fold-{number}" if len(fold_configs) > 1 else folder for number in range(len(fold_configs))]
        for config, run in zip(fold_configs, runs, strict=True):
            if console:
                console.print(f"[bold]{row}[/bold]: {run}", highlight=False)
            train(config, run, resume=True, cache=cache, command=command, console=console)
        results[row] += _results_of(row, runs, plan.evaluate, folder.with_suffix(".json"), cache, command)
        table = comparison(results)
        (out / TABLE).write_text(table, "utf-8")
    return table


def _configs(plan: Plan, row: str, seed: int, overrides: Sequence[str]) -> list[TrainingConfig]:
    """Return the configuration of each fold."""
    changes = dict(plan.rows[row])
    path = find_config(changes.pop("config", plan.config))
    try:
        return [
            read_config(path, [*_overrides(changes), *_overrides(fold), *overrides, f"seed={seed}"])
            for fold in plan.folds
        ]
    except ValueError as error:
        raise ValueError(f"row {row!r}: {error}") from error


def _overrides(changes: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]  # JSON is YAML


def _results_of(
    row: str, runs: Sequence[Path], sources: tuple[Source, ...], file: Path, cache: Path, command: str
) -> tuple[Result, ...]:
    """Return the results of a row's networks, from ``file`` if it belongs to the same weights and data."""
    models = [load_model(run) for run in runs]
    checkpoints = tuple(checkpoint for model in models for checkpoint in model.info.checkpoints)
    if file.exists():
        stored = RowResults.read(file)
        if (stored.checkpoints, stored.evaluate) == (checkpoints, sources):
            return stored.results
    results = tuple(_evaluate(row, models, sources, cache, command))
    RowResults(checkpoints=checkpoints, evaluate=sources, results=results).write(file)
    return results


def _evaluate(
    row: str, models: Sequence[LoadedModel], sources: Sequence[Source], cache: Path, command: str
) -> Iterator[Result]:
    for model in models:
        for data in held_out_sets(model.config):
            yield from evaluate_model(model, data, cache, command)
    leaves_out = any(isinstance(s, Folder) and s.leave_out for model in models for s in model.config.data)
    for source in sources:
        for misaligned in (False, True) if isinstance(source, Pairs) else (False,):
            if isinstance(source, Pairs) and leaves_out:
                yield from evaluate_pooled(models, source, row, cache, command, misaligned=misaligned)
            else:
                for model in models:
                    yield from evaluate_model(model, evaluation_set(source, misaligned=misaligned), cache, command)
