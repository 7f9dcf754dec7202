"""The data set that a training command works on, as its options describe it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.data.sources import Source

__all__ = ["CACHE", "Cache", "DataModality", "Misaligned", "On", "RunArgument", "Translate", "source_from_options"]

CACHE = Path("runs/cache")

Cache = Annotated[Path, typer.Option(help="Folder for decoded crops; runs share it.")]
DataModality = Annotated[str | None, typer.Option(help="Modality of all crops in a folder ROOT/IDENTITY/*.")]
Translate = Annotated[bool, typer.Option(help="Translate visible crops of identities that have no infrared crop.")]
Misaligned = Annotated[bool, typer.Option(help="Mirror and crop infrared differently, for aligned pairs.")]
On = Annotated[
    str | None,
    typer.Option(
        help="Data set as KIND:PATH, KIND one of folder, manifest, pairs, sysu_mm01, regdb, llcm; "
        "without: the held-out identities of the run."
    ),
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run, or of an exported model.")]


def source_from_options(on: str, modality: str | None = None, translate: bool = False, trial: int = 1) -> Source:
    """Return the data set that ``KIND:PATH`` and the options describe, validated as in a configuration.

    Raises:
        ValueError: ``on`` is not of that form, or the data set is not valid.
    """
    from pydantic import TypeAdapter

    from training.data.sources import Source

    kind, colon, path = on.partition(":")
    if not colon:
        raise ValueError(f"--on {on}: expected KIND:PATH, for instance folder:datasets/crops")
    fields: dict[str, object] = {"kind": kind, "root": path, "name": Path(path).name}
    if modality:
        fields["modality"] = modality
    if translate:
        fields["translate"] = "channel"
    if kind == "regdb":
        fields["trial"] = trial
    return TypeAdapter[Source](Source).validate_python(fields)
