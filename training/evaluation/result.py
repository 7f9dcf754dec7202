"""Results of evaluations as JSON files: metrics, protocol, data, model and machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from models.card import WORDING, DataName, Evaluation, InputSpec, Measure, TrainingFacts
from training.environment import Environment
from training.evaluation.protocol import Dataset, Protocol, ProtocolError
from training.evaluation.run import OpenSet, Outcome, TrialCounts

__all__ = [
    "RESULTS",
    "Data",
    "Flags",
    "ModelInfo",
    "Preprocessing",
    "Result",
    "data_fingerprint",
    "join_trials",
    "needs_wording",
    "read_results",
    "update_results",
]

RESULTS = "results.json"
"""Name of the file in the folder of a run or of an exported model that holds its results."""

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_METHODS_OF_OTHERS = re.compile(r"(?<![a-z])(mtrl|icre|emi)(?![a-z])", re.IGNORECASE)


def needs_wording(*names: str) -> bool:
    """Return whether a name contains a method that needs the statement ``models.card.WORDING``.

    >>> needs_wording("emi-lite"), needs_wording("semi-hard baseline")
    (True, False)
    """
    return any(_METHODS_OF_OTHERS.search(name) for name in names)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Part):
    """The images of an evaluation."""

    name: DataName
    sha256: _Sha256
    """sha256 of the sorted relative paths and sizes, see :func:`data_fingerprint`."""
    identities: int
    train_identities: int | None
    """Number of identities of the training, which do not overlap with these; None: unknown."""


class ModelInfo(_Part):
    """The evaluated network."""

    name: str
    method: str
    backbone: str
    parameters: int
    dimension: int
    checkpoints: tuple[_Sha256, ...]
    """Fingerprints of the weights: one, or one for each trial with its own model."""
    epoch: int
    wording: str = ""

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if needs_wording(self.name, self.method) and self.wording != WORDING:
            raise ValueError(f"{self.name}: expected the statement {WORDING!r}, found {self.wording!r}")
        return self


class Preprocessing(InputSpec):
    """How a file is converted to the network's input; the network normalises."""

    colour: Literal["RGB"] = "RGB"
    one_channel: Literal["replicated"] = "replicated"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Flags(_Part):
    """Properties that make a metric incomparable with that of a single plain model."""

    flip: bool
    rerank: str | None
    ensemble: bool
    """Whether several models, or views other than the mirror image, were combined."""
    swapped_roles: bool

    @classmethod
    def of(cls, protocol: Protocol, *, ensemble: bool = False) -> Self:
        """Return the flags that a protocol implies."""
        rerank = protocol.rerank.id if protocol.rerank else None
        return cls(flip=protocol.flip, rerank=rerank, ensemble=ensemble, swapped_roles=protocol.swapped)


class Result(_Part):
    """Result of one protocol: all trials, mean and deviation, and everything that is needed to repeat it."""

    schema_version: Literal[1] = 1
    protocol: Protocol
    protocol_id: str
    flags: Flags
    data: Data
    counts: tuple[TrialCounts, ...]
    metrics: dict[str, Measure]
    """``rank1``, ``rank5``, ``rank10``, ``rank20``, ``map``, ``minp`` and ``chance_rank1`` as fractions."""
    open_set: OpenSet | None = None
    model: ModelInfo
    training: TrainingFacts | None
    """None if the training of the model is unknown."""
    preprocessing: Preprocessing
    environment: Environment
    command: str
    seconds: float = Field(ge=0)
    """Wall time of embedding and evaluation."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.protocol_id != self.protocol.id:
            raise ValueError(f"protocol_id must be {self.protocol.id!r}, found {self.protocol_id!r}")
        if self.flags != Flags.of(self.protocol, ensemble=self.flags.ensemble):
            raise ValueError(f"flags must be those of {self.protocol_id}, found {self.flags}")
        lengths = {len(self.counts), *(len(measure.trials) for measure in self.metrics.values())}
        if lengths != {len(self.protocol.trials)}:
            raise ValueError(f"expected {len(self.protocol.trials)} trials everywhere, found {sorted(lengths)}")
        return self

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        outcome: Outcome,
        *,
        data: Data,
        model: ModelInfo,
        training: TrainingFacts | None,
        preprocessing: Preprocessing,
        environment: Environment,
        command: str,
        seconds: float,
        open_set: OpenSet | None = None,
        ensemble: bool = False,
    ) -> Self:
        """Combine an outcome with the descriptions of data, model and machine."""
        values = [metrics.values() for metrics in outcome.metrics]
        return cls(
            protocol=protocol,
            protocol_id=protocol.id,
            flags=Flags.of(protocol, ensemble=ensemble),
            data=data,
            counts=outcome.counts,
            metrics={name: _measure([trial[name] for trial in values]) for name in values[0]},
            open_set=open_set,
            model=model,
            training=training,
            preprocessing=preprocessing,
            environment=environment,
            command=command,
            seconds=seconds,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a result file.

        Raises:
            OSError: the file cannot be read.
            pydantic.ValidationError: it is not a result of this schema, or is inconsistent.
        """
        return cls.model_validate_json(path.read_text("utf-8"))

    def write(self, path: Path) -> None:
        """Write a result file."""
        path.write_text(self.model_dump_json(indent=2) + "\n", "utf-8")

    def for_card(self) -> Evaluation:
        """Return the part for a model card, with the counts of the first trial."""
        first = self.counts[0]
        return Evaluation(
            protocol_id=self.protocol_id,
            protocol=self.protocol.model_dump(mode="json"),
            data=self.data.name,
            counts={
                "trials": len(self.counts),
                "queries": first.queries,
                "valid_queries": first.valid_queries,
                "gallery": first.gallery,
                "gallery_identities": first.gallery_identities,
            },
            metrics=self.metrics,
            command=self.command,
        )


def read_results(path: Path) -> list[Result]:
    """Return the results in a file, or in ``results.json`` of a folder; none if the folder has no such file.

    Raises:
        OSError: the file cannot be read.
        pydantic.ValidationError: it contains neither a result nor a list of results.
    """
    file = path / RESULTS if path.is_dir() else path
    if path.is_dir() and not file.exists():
        return []
    stored = _FILE.validate_json(file.read_text("utf-8"))
    return [stored] if isinstance(stored, Result) else stored


def update_results(folder: Path, results: Iterable[Result]) -> None:
    """Write results to ``results.json`` of a folder; they replace those of the same model, data and protocol.

    Raises:
        OSError: the file cannot be read or written.
        pydantic.ValidationError: the existing file has other contents.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merged = {_key(result): result for result in [*read_results(folder), *results]}
    ordered = [merged[key] for key in sorted(merged, key=lambda key: [part.casefold() for part in key])]
    (folder / RESULTS).write_bytes(_FILE.dump_json(ordered, indent=2) + b"\n")


def _key(result: Result) -> tuple[str, str, str]:
    return result.data.name, result.protocol_id, result.model.name


_FILE: TypeAdapter[Result | list[Result]] = TypeAdapter(Result | list[Result])


def join_trials(results: Iterable[Result], name: str) -> list[Result]:
    """Average the results of several models, one for each trial, under each protocol of RegDB.

    Returns a result of the model ``name`` for each protocol and data set, in the order of their first results. Epoch,
    training, environment and command are those of the first trial.

    Raises:
        ProtocolError: there is no result, one is not of RegDB, or those of one protocol are of different methods,
            backbones or sizes, or repeat a trial.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.protocol.dataset is not Dataset.REGDB:
            raise ProtocolError(
                f"only RegDB has a model for each trial: expected results of RegDB, found {result.protocol_id} "
                f"of {result.model.name}"
            )
        rules = result.protocol.changed(trials=(1,), train_ids=1).id
        groups.setdefault((rules, result.data.name), []).append(result)
    if not groups:
        raise ProtocolError("expected the results of at least one trial, found none")
    return [_join(parts, name) for parts in groups.values()]


def _join(results: Iterable[Result], name: str) -> Result:
    parts = sorted(results, key=lambda result: result.protocol.trials)
    first = parts[0]
    for part in parts:
        if (found := _kind(part)) != _kind(first):
            raise ProtocolError(
                f"expected trials of one kind of model, found {', '.join(_kind(first))} in {first.model.name} "
                f"and {', '.join(found)} in {part.model.name}"
            )
    model_of_trial: dict[int, str] = {}
    for part in parts:
        for trial in part.protocol.trials:
            if trial in model_of_trial:
                raise ProtocolError(
                    f"expected each trial once, found trial {trial} of {first.data.name} in {model_of_trial[trial]} "
                    f"and in {part.model.name}"
                )
            model_of_trial[trial] = part.model.name
    split = None if len(model_of_trial) > 1 else first.protocol.train_ids
    joined = first.protocol.changed(trials=tuple(model_of_trial), train_ids=split)
    names = {"name": name, "wording": WORDING if needs_wording(name, first.model.method) else ""}
    checkpoints = tuple(checkpoint for part in parts for checkpoint in part.model.checkpoints)
    return first.model_copy(
        update={
            "protocol": joined,
            "protocol_id": joined.id,
            "counts": tuple(counts for part in parts for counts in part.counts),
            "metrics": {
                metric: _measure([value for part in parts for value in part.metrics[metric].trials])
                for metric in first.metrics
            },
            "open_set": None,
            "model": first.model.model_copy(update={**names, "checkpoints": checkpoints}),
            "seconds": sum(part.seconds for part in parts),
        }
    )


def _kind(result: Result) -> tuple[str, ...]:
    size = result.preprocessing
    return result.model.method, result.model.backbone, f"{size.height} x {size.width}"


def data_fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """Return the sha256 over the sorted relative paths and sizes of the files of a data set."""
    digest = hashlib.sha256()
    for path in sorted(path.relative_to(root).as_posix() for path in paths):
        digest.update(f"{path} {(root / path).stat().st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _measure(trials: Sequence[float]) -> Measure:
    return Measure(mean=fmean(trials), std=stdev(trials) if len(trials) > 1 else None, trials=tuple(trials))
