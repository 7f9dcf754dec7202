"""What a change is worth: rows of one table that differ in one thing, each over several seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from models.card import WORDING
from training.evaluation.protocol import ProtocolError
from training.evaluation.result import Result, needs_wording

__all__ = ["comparison"]

_METRICS = {"rank1": "R1", "map": "mAP"}

_Judged = dict[str, dict[str, list[Result]]]
"""Results of one data set by row and protocol."""


def comparison(rows: Mapping[str, Sequence[Result]]) -> str:
    """A Markdown table for each data set, both directions side by side, in percent: mean ± deviation over the runs.

    Args:
        rows: every result of every run, by the name of its row. A row may lack some.

    Raises:
        ProtocolError: there is no result.
    """
    data_sets: dict[str, _Judged] = {}
    for row, results in rows.items():
        for result in results:
            data_sets.setdefault(result.data.name, {}).setdefault(row, {}).setdefault(result.protocol_id, []).append(
                result
            )
    if not data_sets:
        raise ProtocolError("expected at least one result, found none")
    every = [result for results in rows.values() for result in results]
    parts = [_facts(every), *(f"## {name}\n\n{_table(judged)}" for name, judged in data_sets.items())]
    if needs_wording(*(result.model.method for result in every)):
        parts.append(f"MTRL, ICRE and EMI: {WORDING}.")
    return "\n\n".join(parts) + "\n"


def _table(judged: _Judged) -> str:
    protocols = sorted({protocol for row in judged.values() for protocol in row})
    lines = [["Row", "Seeds", *(f"{protocol} {metric}" for protocol in protocols for metric in _METRICS.values())]]
    lines.append(["---"] * len(lines[0]))
    for name, row in judged.items():
        seeds = _joined(seed for results in row.values() for result in results for seed in _seeds(result))
        cells = (_percent(row.get(protocol, []), metric) for protocol in protocols for metric in _METRICS)
        lines.append([name.replace("|", r"\|"), seeds, *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    counts = (
        _counts(protocol, next(row[protocol][0] for row in judged.values() if protocol in row))
        for protocol in protocols
    )
    return f"{table}\n\n{'; '.join(counts)}."


def _percent(results: Sequence[Result], metric: str) -> str:
    values = [100 * result.metrics[metric].mean for result in results]
    if not values:
        return "–"
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _counts(protocol: str, result: Result) -> str:
    counts = result.counts[0]
    return (
        f"{protocol}: {counts.valid_queries} valid of {counts.queries} queries, {counts.gallery} in the gallery "
        f"({counts.gallery_identities} identities), chance R1 {100 * result.metrics['chance_rank1'].mean:.2f}"
    )


def _facts(results: Sequence[Result]) -> str:
    """What holds of all rows, or each of the values there are."""
    told = {
        "Backbone": _joined(result.model.backbone for result in results),
        "input": _joined(f"{result.preprocessing.height} × {result.preprocessing.width}" for result in results),
        "weights of the epoch": _joined(map(_epoch, results)),
        "flip": _joined("yes" if result.flags.flip else "no" for result in results),
        "re-ranking": _joined(result.flags.rerank or "no" for result in results),
    }
    return "; ".join(f"{name}: {value}" for name, value in told.items()) + "."


def _epoch(result: Result) -> str:
    validation = result.training.config.get("validation") if result.training else None
    rule = validation.get("select", "unknown") if isinstance(validation, dict) else "unknown"
    return f"{rule} ({result.model.epoch})"


def _seeds(result: Result) -> list[str]:
    return [str(result.training.seed)] if result.training else []


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
