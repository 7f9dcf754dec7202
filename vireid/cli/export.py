"""The commands that export networks to ONNX and add precisions to an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.console import TRAINING, one_line_errors, typed_command
from vireid.cli.data_options import CACHE, Cache, DataModality, Misaligned, On, Translate, source_from_options

__all__ = ["app"]

app = typer.Typer()

Weights = Annotated[
    list[float] | None, typer.Option("--weight", help="Weight of a fused run, in their order; without: 1 for each.")
]
HalfWeights = Annotated[
    bool, typer.Option("--half-weights", help="Store weights as float16: half the size, slightly rounded.")
]


@app.command(rich_help_panel=TRAINING)
def export(
    runs: Annotated[list[Path], typer.Argument(help="Folder of a run; of several with --fuse.")],
    name: Annotated[str, typer.Option(help="Name of the model, for instance baseline-lite.")],
    out: Annotated[Path, typer.Option(help="Folder for model.onnx and card.json; the server loads MODEL_DIR/NAME.")],
    version: Annotated[str, typer.Option(help="Version for the card.")] = "1",
    fuse: Annotated[bool, typer.Option("--fuse", help="Join the embeddings of all runs in one graph.")] = False,
    weights: Weights = None,
    half_weights: HalfWeights = False,
) -> None:
    """Export a network to ONNX with its card.

    The graph is compared with the network first; where they differ, nothing is written and the exit code is 1. The card
    holds the results in RUN/results.json, or for a fused model those in OUT/results.json: export it, evaluate OUT, and
    export it again.
    """
    with one_line_errors():
        from training.export.onnx import ParityError
        from training.export.release import release, release_fused

        if not fuse and (len(runs) > 1 or weights):
            raise ValueError(f"found {len(runs)} runs and {len(weights or ())} weights: more than one run needs --fuse")
        try:
            if fuse:
                factors = weights or [1.0] * len(runs)
                parity = release_fused(runs, factors, name, version, out, typed_command(), half_weights=half_weights)
            else:
                parity = release(runs[0], name, version, out, half_weights=half_weights)
        except ParityError as error:
            typer.secho(str(error), err=True, fg="red")
            raise typer.Exit(1) from error
        typer.echo(
            f"{out / 'model.onnx'}: parity at batch {', '.join(map(str, parity.batches))} in both modalities: "
            f"max error {parity.max_error:.1e}, min cosine {parity.min_cosine:.7f}, "
            f"{parity.ranking_differs} of {parity.probes} rankings differ"
        )


@app.command(rich_help_panel=TRAINING)
def quantise(
    model: Annotated[Path, typer.Argument(help="Folder of an exported model; file and card entry are added there.")],
    precision: Annotated[str, typer.Option(help="int8 or bf16, for CPUs, or fp16, for GPUs.")] = "int8",
    on: On = None,
    modality: DataModality = None,
    translate: Translate = False,
    misaligned: Misaligned = False,
    in_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART", help="int8: part of the network that stays in float, such as trunk.stages.0; repeatable."
        ),
    ] = None,
    cache: Cache = CACHE,
) -> None:
    """Add int8, bf16 or fp16 to an exported model.

    The loss in Rank-1 and mAP is measured on the held-out identities of the data that the card names; value ranges on
    its training crops. bf16 needs no file. Run it again after every export, which starts a new card.
    """
    with one_line_errors():
        from models.card import MAX_LOSS, Precision
        from training.evaluation.evaluator import evaluation_set
        from training.export.precision_variants import add_variant

        if precision not in {Precision.INT8, Precision.BF16, Precision.FP16}:
            raise ValueError(f"--precision {precision}: expected int8, bf16 or fp16")
        sets = [evaluation_set(source_from_options(on, modality, translate), misaligned=misaligned)] if on else []
        variant = add_variant(model, Precision(precision), cache, sets, typer.echo, in_float or ())
        use = "where it is faster" if variant.accepted else f"only on request: it loses more than {MAX_LOSS}"
        typer.echo(f"{model / variant.file}: used {use}")
