"""Release of a trained network as a model for the server: its card and its exported and checked graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from models.baseline import Baseline
from models.card import WORDING, Calibration, Card, InputSpec, Member
from models.fused import Fused
from models.start_weights import START_WEIGHTS
from training.checkpoint import fingerprint, load_trained
from training.evaluation.model_loader import training_metadata
from training.evaluation.result import needs_wording, read_results
from training.export.onnx import Parity, export

__all__ = ["CALIBRATIONS", "release", "release_fused", "write_calibrations"]

CALIBRATIONS = "calibrations.json"
_CALIBRATION_LIST = TypeAdapter(list[Calibration])

INTENDED_USE = (
    "Ranking crops of people from visible and infrared cameras by similarity, for a person who reviews the hits and "
    "decides. Not for automatic decisions about people, and not for identifying people who are not in the gallery."
)
LIMITS = (
    "Measured only on the data named here: other cameras, wavelengths, crops or populations need their own "
    "measurement. A false match rate is valid for the calibration data. Restrictions of the data to research apply to "
    "the weights."
)


def release(run: Path, name: str, version: str, out: Path, *, half_weights: bool = False) -> Parity:
    """Export the network of ``run`` to ``out`` with a card that contains all results in the run's folder.

    ``half_weights``: see :func:`training.export.onnx.export`.

    Raises:
        FileNotFoundError: the run has no ``model.pt``.
        ValueError: ``name`` is not a valid model name, or a result was measured on other weights.
        training.export.onnx.ParityError: the exported graph and the network disagree; nothing is written.
    """
    trained = load_trained(run / "model.pt")
    network, config = trained.network, trained.config
    card = _describe(
        network,
        run,
        name=name,
        method=config.method,
        backbone=config.backbone,
        version=version,
        input=InputSpec(**config.input.model_dump()),
        training=training_metadata(trained),
    )
    return export(network, card, out, half_weights=half_weights)


def release_fused(
    runs: Sequence[Path],
    weights: Sequence[float],
    name: str,
    version: str,
    out: Path,
    command: str,
    *,
    half_weights: bool = False,
) -> Parity:
    """Export the networks of several runs to ``out`` as one, :class:`models.fused.Fused`.

    A fused network has no run: its card contains the results that ``vireid evaluate OUT`` wrote to ``out`` after an
    earlier export. ``command``: command line, stored in the card.

    Raises:
        FileNotFoundError: a run has no ``model.pt``.
        ValueError: there are fewer than two runs, or another number of weights; the runs differ in data, held-out
            identities or input; ``name`` is not a valid model name, or a result in ``out`` was measured on other
            weights.
        training.export.onnx.ParityError: the exported graph and the networks disagree; nothing is written.
    """
    members = [load_trained(run / "model.pt") for run in runs]
    network = Fused([member.network for member in members], weights)
    first = members[0]
    for run, member in zip(runs, members, strict=True):
        if (member.config.data, member.held_out) != (first.config.data, first.held_out):
            raise ValueError(
                f"{run} and {runs[0]} differ in their training data or held-out identities, "
                "so that no result would be valid for both: train them on the same data"
            )
        if member.config.input != first.config.input:
            raise ValueError(f"{run} and {runs[0]} differ in their input: {member.config.input}, {first.config.input}")
    origins = [training_metadata(member) for member in members]
    sources = tuple(dict.fromkeys(source for origin in origins for source in origin.data))
    card = _describe(
        network,
        out,
        name=name,
        method="+".join(member.config.method for member in members),
        backbone="+".join(dict.fromkeys(member.config.backbone for member in members)),
        version=version,
        input=InputSpec(**first.config.input.model_dump()),
        training=origins[0].model_copy(update={"data": sources, "command": command}),
        members=tuple(
            Member(
                name=run.name,
                method=member.config.method,
                backbone=member.config.backbone,
                fingerprint=fingerprint(member.network),
                weight=weight,
                training=origin,
            )
            for run, member, weight, origin in zip(runs, members, weights, origins, strict=True)
        ),
    )
    return export(network, card, out, half_weights=half_weights)


def _describe(network: Baseline | Fused, folder: Path, *, name: str, method: str, **fields: Any) -> Card:
    """Build the card of a network without files, with the results and calibrations in ``folder``."""
    identity = fingerprint(network)
    results = read_results(folder) if folder.is_dir() else []  # a fused model has no folder before its first export
    for result in results:
        if result.model.checkpoints != (identity,):
            raise ValueError(
                f"{folder}: {result.protocol_id} on {result.data.name} was measured on other weights: "
                "remove it or evaluate again"
            )
    return Card(
        name=name,
        method=method,
        wording=WORDING if needs_wording(name, method) else "",
        fingerprint=identity,
        dimension=network.dimension,
        parameters=network.inference_parameters(),
        precisions={},
        evaluations=tuple(result.for_card() for result in results),
        calibrations=tuple(_read_calibrations(folder)),
        intended_use=INTENDED_USE,
        limits=" ".join([LIMITS, *_start_remarks(fields["backbone"])]),
        **fields,
    )


def _start_remarks(backbones: str) -> list[str]:
    """Return the remarks of a card on initial weights; ``backbones`` are joined by a plus sign."""
    return [
        f"Initial weights: {start.name} of the {start.publisher}, {start.licence}; its training data are "
        f"{start.training_data}."
        for start in START_WEIGHTS
        if start.backbone in backbones.split("+")
    ]


def write_calibrations(run: Path, calibrations: list[Calibration]) -> None:
    """Write calibrations to the folder of a run; they replace earlier ones on the same data."""
    measured = {calibration.data for calibration in calibrations}
    kept = [calibration for calibration in _read_calibrations(run) if calibration.data not in measured]
    (run / CALIBRATIONS).write_bytes(_CALIBRATION_LIST.dump_json([*kept, *calibrations], indent=2))


def _read_calibrations(run: Path) -> list[Calibration]:
    path = run / CALIBRATIONS
    return _CALIBRATION_LIST.validate_json(path.read_text("utf-8")) if path.exists() else []
