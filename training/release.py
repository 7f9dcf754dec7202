"""From a run and its results to a model that the server loads: the card written, the graph exported and checked."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from models.card import WORDING, Calibration, Card, InputSpec
from training.checkpoint import load_trained
from training.evaluation.result import Result, needs_wording
from training.export import Parity, export, fingerprint
from training.subject import training_facts

__all__ = ["CALIBRATIONS", "RESULTS", "read_results", "release", "write_calibrations"]

RESULTS, CALIBRATIONS = "results", "calibrations.json"
_CALIBRATION_LIST = TypeAdapter(list[Calibration])

INTENDED_USE = (
    "Ranking crops of people from visible and infrared cameras by likeness, for a person who looks at the hits and "
    "decides. Not for decisions about people without one, and not for identifying people who are not in the gallery."
)
LIMITS = (
    "Measured on the data named here and on nothing else: other cameras, wavelengths, crops or populations need their "
    "own measurement. A false match rate holds for the calibration data. Data marked for research binds the weights."
)


def release(run: Path, name: str, version: str, out: Path) -> Parity:
    """Export the network of ``run`` to ``out`` with a card that holds every result found in the run's folder.

    Raises:
        FileNotFoundError: the run has no ``model.pt``.
        ValueError: ``name`` is no model name, or a result was measured on other weights.
        training.export.ParityError: the exported graph disagrees with the network; nothing is written.
    """
    trained = load_trained(run / "model.pt")
    network, config = trained.network, trained.config
    identity = fingerprint(network)
    results = read_results(run)
    for result in results:
        if result.model.checkpoints != (identity,):
            raise ValueError(
                f"{run}: {result.protocol_id} on {result.data.name} was measured on other weights; measure again"
            )
    card = Card(
        name=name,
        method=config.method,
        backbone=config.backbone,
        version=version,
        wording=WORDING if needs_wording(name, config.method) else "",
        fingerprint=identity,
        input=InputSpec(**config.input.model_dump()),
        dimension=network.dimension,
        parameters=network.inference_parameters(),
        precisions={},
        training=training_facts(trained),
        evaluations=tuple(result.for_card() for result in results),
        calibrations=tuple(_read_calibrations(run)),
        intended_use=INTENDED_USE,
        limits=LIMITS,
    )
    return export(network, card, out)


def read_results(run: Path) -> list[Result]:
    """Every result in ``RUN/results``, by file name."""
    return [Result.read(path) for path in sorted((run / RESULTS).glob("*.json"))]


def write_calibrations(run: Path, calibrations: list[Calibration]) -> None:
    """Keep what the scores of the run's network mean."""
    (run / CALIBRATIONS).write_bytes(_CALIBRATION_LIST.dump_json(calibrations, indent=2))


def _read_calibrations(run: Path) -> list[Calibration]:
    path = run / CALIBRATIONS
    return _CALIBRATION_LIST.validate_json(path.read_text("utf-8")) if path.exists() else []
