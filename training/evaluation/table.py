"""Tables of results in Markdown and LaTeX, with all conditions of each measurement."""

from __future__ import annotations

from collections.abc import Sequence

from models.card import WORDING, Measure
from training.evaluation.protocol import ProtocolError
from training.evaluation.result import Result, needs_wording

__all__ = ["latex", "markdown"]

_METRICS = {"rank1": "R1", "rank5": "R5", "rank10": "R10", "rank20": "R20", "map": "mAP", "minp": "mINP"}
_COLUMNS = (
    *("Model", "Backbone", "Data", "Protocol", "Convention", "Roles"),
    *("Flip", "Re-ranking", "Ensemble", "Trials", "Valid / queries"),
)
_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"} | {"±": "$\\pm$", "–": "--"})


def markdown(results: Sequence[Result], *, mixed: bool = False) -> str:
    """Return a Markdown table with a row for each result, in the given order; metrics in percent, mean ± deviation.

    Args:
        results: at least one.
        mixed: allow rows of different protocols or data sets.

    Raises:
        ProtocolError: there is no result, or rows are not comparable and ``mixed`` is false.
    """
    _check(results, mixed)
    header, *rows = _cells(results)
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
    return "\n\n".join((table, *_notes(results))) + "\n"


def latex(results: Sequence[Result], *, mixed: bool = False) -> str:
    """Return the table as a LaTeX ``tabular``; arguments and errors are those of :func:`markdown`."""
    _check(results, mixed)
    header, *rows = ([cell.translate(_LATEX) for cell in line] for line in _cells(results))
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(header)}}}",
        r"\hline",
        " & ".join(header) + r" \\",
        r"\hline",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\hline",
        r"\end{tabular}",
        *(rf"\par {note.translate(_LATEX)}" for note in _notes(results)),
    ]
    return "\n".join(lines) + "\n"


def _check(results: Sequence[Result], mixed: bool) -> None:
    if not results:
        raise ProtocolError("expected at least one result, found none")
    evaluations = {(result.protocol_id, result.data.name) for result in results}
    if len(evaluations) > 1 and not mixed:
        found = "; ".join(f"{protocol} on {data}" for protocol, data in sorted(evaluations))
        raise ProtocolError(f"rows of different protocols are not comparable: allow it with --mixed; found {found}")


def _cells(results: Sequence[Result]) -> list[list[str]]:
    columns = [
        "Model",
        "Backbone",
        "Data",
        "Protocol",
        "Convention",
        "Roles",
        "Flip",
        "Re-ranking",
        "Ensemble",
        "Trials",
    ]
    return [
        [*columns, "Valid / queries", *_METRICS.values(), "Chance R1"],
        *(
            [
                result.model.name,
                result.model.backbone,
                result.data.name,
                result.protocol_id,
                result.protocol.convention or "–",
                "swapped" if result.flags.swapped_roles else "as named",
                _yes(result.flags.flip),
                result.flags.rerank or "no",
                _yes(result.flags.ensemble),
                str(len(result.protocol.trials)),
                " ".join(sorted({f"{c.valid_queries} / {c.queries}" for c in result.counts})),
                *(_percent(result.metrics.get(name)) for name in (*_METRICS, "chance_rank1")),
            ]
            for result in results
        ),
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _percent(measure: Measure | None) -> str:
    if measure is None:
        return "–"
    mean = f"{100 * measure.mean:.2f}"
    return mean if measure.std is None else f"{mean} ± {100 * measure.std:.2f}"


def _notes(results: Sequence[Result]) -> list[str]:
    """Return the notes below the table."""
    named = sorted({r.model.name for r in results if needs_wording(r.model.name, r.model.method)})
    return [f"{', '.join(named)}: {WORDING}."] if named else []
