"""From a run and its results to a model that the server loads: the card written, the graph exported and checked."""

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
from training.evaluation.model_loader import training_facts
from training.evaluation.result import needs_wording, read_results
from training.export.onnx import Parity, export

__all__ = ["CALIBRATIONS", "release", "release_fused", "write_calibrations"]

CALIBRATIONS = "calibrations.json"
_CALIBRATION_LIST = TypeAdapter(list[Calibration])

INTENDED_USE = (
    "Ranking crops of people from visible and infrared cameras by likeness, for a person who looks at the hits and "
    "decides. Not for decisions about people without one, and not for identifying people who are not in the gallery."
)
LIMITS = (
    "Measured on the data named here and on nothing else: other cameras, wavelengths, crops or populations need their "
    "own measurement. A false match rate holds for the calibration data. Data marked for research binds the weights."
)


def release(run: Path, name: str, version: str, out: Path, *, half_weights: bool = False) -> Parity:
    """Export the network of ``run`` to ``out`` with a card that holds every result found in the run's folder.

    ``half_weights``: see :func:`training.export.onnx.export`.

    Raises:
        FileNotFoundError: the run has no ``model.pt``.
        ValueError: ``name`` is no model name, or a result was measured on other weights.
        training.export.onnx.ParityError: the exported graph disagrees with the network; nothing is written.
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
        training=training_facts(trained),
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

    A fused network has no run of its own: the card holds what ``vireid evaluate OUT`` left in ``out`` after an earlier
    export. ``command`` is what asked for it.

    Raises:
        FileNotFoundError: a run has no ``model.pt``.
        ValueError: fewer than two runs or weights that do not fit them; runs of different data, kept-out identities or
            input; ``name`` is no model name, or a result in ``out`` was measured on other weights.
        training.export.onnx.ParityError: the exported graph disagrees with the networks; nothing is written.
    """
    members = [load_trained(run / "model.pt") for run in runs]
    network = Fused([member.network for member in members], weights)
    first = members[0]
    for run, member in zip(runs, members, strict=True):
        if (member.config.data, member.held_out) != (first.config.data, first.held_out):
            raise ValueError(
                f"{run} and {runs[0]} differ in the data they learnt from or kept out, "
                "so that no result would be fair to both: train them on the same"
            )
        if member.config.input != first.config.input:
            raise ValueError(f"{run} and {runs[0]} differ in their input: {member.config.input}, {first.config.input}")
    origins = [training_facts(member) for member in members]
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
    """The card of a network, without its files, with the results and calibrations in ``folder``."""
    identity = fingerprint(network)
    results = read_results(folder) if folder.is_dir() else []  # a fused model has no folder before its first export
    for result in results:
        if result.model.checkpoints != (identity,):
            raise ValueError(
                f"{folder}: {result.protocol_id} on {result.data.name} was measured on other weights: "
                "remove it, or measure again"
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
    """What a card says of the networks that a backbone started from; ``backbones`` are joined by a plus sign."""
    return [
        f"Grown from {start.name} of the {start.publisher}, {start.licence}; its training data are "
        f"{start.training_data}."
        for start in START_WEIGHTS
        if start.backbone in backbones.split("+")
    ]


def write_calibrations(run: Path, calibrations: list[Calibration]) -> None:
    """Record what the scores of the run's network mean; earlier calibrations on the same data are replaced."""
    measured = {calibration.data for calibration in calibrations}
    kept = [calibration for calibration in _read_calibrations(run) if calibration.data not in measured]
    (run / CALIBRATIONS).write_bytes(_CALIBRATION_LIST.dump_json([*kept, *calibrations], indent=2))


def _read_calibrations(run: Path) -> list[Calibration]:
    path = run / CALIBRATIONS
    return _CALIBRATION_LIST.validate_json(path.read_text("utf-8")) if path.exists() else []
