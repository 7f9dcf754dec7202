"""False match rates in words, for the commands that print scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vireid.client import CalibrationUsed, SearchAnswer

__all__ = ["NOT_CALIBRATED", "describe_calibrations", "describe_used", "false_hits_text", "rate_text"]

NOT_CALIBRATED = "not calibrated for this kind of data: no false match rate is known"


def rate_text(rate: float | None, below: bool) -> str:
    """Return a false match rate as text: ``0.12%``, ``< 1/15,500`` above all impostor scores, or nothing."""
    if rate is None:
        return ""
    return f"< 1/{round(1 / rate):,}" if below else f"{rate:.2g}" if rate < 1e-4 else f"{rate:.2%}"


def false_hits_text(expected: float | None, below: bool) -> str:
    """Return the expected number of false hits as text, with two significant digits."""
    if expected is None:
        return ""
    number = f"{expected:,.0f}" if expected >= 10 else f"{expected:.2g}"
    return f"< {number}" if below else number


def describe_used(used: CalibrationUsed) -> str:
    """Return what a calibration was measured on, in one phrase."""
    people = "" if used.identities is None else f" of {used.identities:,} people"
    origin = "real crops" if used.real else "not on real infrared crops"
    version = "" if used.version is None else f", version {used.version}"
    return (
        f"{used.query} → {used.gallery}: {used.data}{version}; {used.impostor_pairs:,} pairs of different "
        f"people{people}; {origin}"
    )


def describe_calibrations(answer: SearchAnswer) -> Sequence[str]:
    """Return lines that say what the rates of a search mean and what they were measured on."""
    if not answer.calibrations:
        return (f"These modalities are {NOT_CALIBRATED}.",) if answer.hits else ()
    lines = [f"False matches were measured on {describe_used(used)}." for used in answer.calibrations.values()]
    meaning = f"Expected false hits: items of other people among the {answer.searched:,} that score at least as high."
    if any(hit.false_match_rate is None for hit in answer.hits):
        lines.append(f"Hits without a rate are {NOT_CALIBRATED}.")
    return (*lines, meaning)
