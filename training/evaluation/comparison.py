"""Comparison of variants in a table, each trained with several seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import fmean, stdev

from models.card import WORDING
from training.evaluation.protocol import ProtocolError
from training.evaluation.result import Result, needs_wording

__all__ = ["comparison"]

_METRICS = {"rank1": "R1", "map": "mAP"}
_CHANCE = {"rank1": "chance_rank1"}
_LEGEND = (
    "In percent, mean ± standard deviation over the runs of a row. A gain is over the first row, in points; *beyond* "
    "or *within* the spread of the runs, the root of the sum of both rows' squared deviations. One run has no spread."
)

_Results = dict[str, dict[str, list[Result]]]
"""Results of one data set by row and protocol."""


def comparison(rows: Mapping[str, Sequence[Result]]) -> str:
    """Return a Markdown table for each data set: means of both directions, gains over the first row, and chance.

    Args:
        rows: all results of all runs, by the name of their row. A row may lack some.

    Raises:
        ProtocolError: there is no result.
    """
    data_sets: dict[str, _Results] = {}
    for row, results in rows.items():
        for result in results:
            data_sets.setdefault(result.data.name, {}).setdefault(row, {}).setdefault(result.protocol_id, []).append(
                result
            )
    if not data_sets:
        raise ProtocolError("expected at least one result, found none")
    every = [result for results in rows.values() for result in results]
    parts = [_settings(every), _LEGEND, *(f"### {name}\n\n{_section(results)}" for name, results in data_sets.items())]
    if needs_wording(*(result.model.method for result in every)):
        parts.append(f"MTRL, ICRE and EMI: {WORDING}.")
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True, slots=True)
class _Gain:
    """Gain of a row over another, in percentage points."""

    points: float
    spread: float | None
    """None if one of the rows has only one run."""

    @classmethod
    def of(cls, values: Sequence[float], others: Sequence[float]) -> _Gain:
        spread = hypot(stdev(values), stdev(others)) if min(len(values), len(others)) > 1 else None
        return cls(fmean(values) - fmean(others), spread)

    @property
    def beyond(self) -> bool:
        """Whether its magnitude exceeds the spread."""
        return self.spread is not None and abs(self.points) > self.spread

    def __str__(self) -> str:
        if self.spread is None:
            return f"{self.points:+.2f}"
        return f"{self.points:+.2f}, {'beyond' if self.beyond else 'within'} {self.spread:.2f}"


def _section(rows: _Results) -> str:
    protocols = sorted({protocol for row in rows.values() for protocol in row})
    counts = (_counts(protocol, [r for row in rows.values() for r in row.get(protocol, [])]) for protocol in protocols)
    parts = [_table(rows, protocols), _verdict(rows, protocols), f"{'; '.join(counts)}."]
    return "\n\n".join(part for part in parts if part)


def _table(rows: _Results, protocols: Sequence[str]) -> str:
    reference = next(iter(rows))
    compared = len(rows) > 1
    lines = [["Row", "Seeds"], ["chance", ""]]
    for protocol in protocols:
        results = [result for row in rows.values() for result in row.get(protocol, [])]
        for metric, label in _METRICS.items():
            lines[0] += [f"{protocol} {label}", *(["gain"] if compared else [])]
            lines[1] += [_chance(results, metric), *([""] if compared else [])]
    for name, row in rows.items():
        seeds = _joined(seed for results in row.values() for result in results for seed in _seeds(result))
        cells = [name.replace("|", r"\|"), seeds]
        for protocol in protocols:
            for metric in _METRICS:
                values, others = _values(row, protocol, metric), _values(rows[reference], protocol, metric)
                gain = str(_Gain.of(values, others)) if values and others and name != reference else "–"
                cells += [_percent(values), *([gain] if compared else [])]
        lines.insert(-1, cells)
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdict(rows: _Results, protocols: Sequence[str]) -> str:
    """List the rows that differ from the first by more than the spread, with the same sign under every protocol."""
    reference, *others = rows
    found: dict[str, list[str]] = {}
    for name in others:
        gains = [
            _Gain.of(_values(rows[name], protocol, "map"), _values(rows[reference], protocol, "map"))
            for protocol in protocols
            if protocol in rows[name] and protocol in rows[reference]
        ]
        if not gains or any(gain.spread is None for gain in gains):
            kind = "not known"
        elif all(gain.beyond and gain.points > 0 for gain in gains):
            kind = "better"
        elif all(gain.beyond and gain.points < 0 for gain in gains):
            kind = "worse"
        else:
            kind = "neither"
        found.setdefault(kind, []).append(name)
    if not found:
        return ""
    summary = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items())
    return f"mAP against {reference}, by more than the spread of the runs under every protocol – {summary}."


def _values(row: Mapping[str, Sequence[Result]], protocol: str, metric: str) -> list[float]:
    return [100 * result.metrics[metric].mean for result in row.get(protocol, [])]


def _percent(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _chance(results: Sequence[Result], metric: str) -> str:
    if metric not in _CHANCE:
        return "–"
    return _joined(f"{100 * result.metrics[_CHANCE[metric]].mean:.2f}" for result in results)


def _counts(protocol: str, results: Sequence[Result]) -> str:
    descriptions = {
        f"{counts.valid_queries} valid of {counts.queries} queries, {counts.gallery} in the gallery "
        f"({counts.gallery_identities} identities)"
        for counts in (result.counts[0] for result in results)
    }
    return f"{protocol}: {' or '.join(sorted(descriptions))}"


def _settings(results: Sequence[Result]) -> str:
    """Describe the settings of all rows: each value that occurs."""
    values = {
        "Backbone": _joined(result.model.backbone for result in results),
        "input": _joined(f"{result.preprocessing.height} × {result.preprocessing.width}" for result in results),
        "weights of the epoch": _joined(map(_epoch, results)),
        "flip": _joined("yes" if result.flags.flip else "no" for result in results),
        "re-ranking": _joined(result.flags.rerank or "no" for result in results),
    }
    return "; ".join(f"{name}: {value}" for name, value in values.items()) + "."


def _epoch(result: Result) -> str:
    validation = result.training.config.get("validation") if result.training else None
    rule = validation.get("select", "unknown") if isinstance(validation, dict) else "unknown"
    return f"{rule} ({result.model.epoch})"


def _seeds(result: Result) -> list[str]:
    return [str(result.training.seed)] if result.training else []


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
