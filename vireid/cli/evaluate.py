"""The commands that evaluate networks and print tables of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vireid.cli.console import TRAINING, one_line_errors, typed_command
from vireid.cli.data_options import (
    CACHE,
    Cache,
    DataModality,
    Misaligned,
    On,
    RunArgument,
    Translate,
    source_from_options,
)

if TYPE_CHECKING:
    from training.evaluation.evaluator import EvaluationSet
    from training.evaluation.result import Result

__all__ = ["app"]

app = typer.Typer()

Trial = Annotated[int, typer.Option(help="RegDB: which of the ten splits.")]
Preset = Annotated[
    list[str] | None,
    typer.Option(
        help="Id of a protocol that replaces the usual ones, for instance sysu-all-10shot-official_perm or "
        "llcm-vis_to_ir-deen_release; repeatable; an unknown id lists all."
    ),
]
Flip = Annotated[bool, typer.Option(help="Average each embedding with that of the mirrored crop.")]
Calibrate = Annotated[bool, typer.Option("--calibrate", help="Calibrate the scores on the data set of --on.")]
Rerank = Annotated[bool, typer.Option(help="Add a row with k-reciprocal re-ranking.")]


@app.command(rich_help_panel=TRAINING)
def evaluate(
    run: RunArgument,
    on: On = None,
    modality: DataModality = None,
    translate: Translate = False,
    misaligned: Misaligned = False,
    trial: Trial = 1,
    preset: Preset = None,
    flip: Flip = False,
    rerank: Rerank = False,
    calibrate: Calibrate = False,
    cache: Cache = CACHE,
) -> None:
    """Evaluate a network under the protocols of a data set.

    The results go to RUN/results.json. Without --on, the scores of the network are calibrated too. Calibrations go to
    RUN/calibrations.json and with the next export into the card.
    """
    with one_line_errors():
        from training.evaluation.evaluator import (
            calibrations,
            evaluate_model,
            evaluation_set,
            grey_sets,
            held_out_sets,
        )
        from training.evaluation.model_loader import load_model
        from training.evaluation.rerank import KReciprocal
        from training.export.release import write_calibrations

        data_options = {
            "--modality": modality,
            "--translate": translate,
            "--misaligned": misaligned,
            "--preset": preset,
        }
        if not on and (given := [option for option, value in data_options.items() if value]):
            raise ValueError(f"{', '.join(given)}: needs a data set; name it with --on")
        model = load_model(run)
        sets: list[EvaluationSet]
        if on:
            source = source_from_options(on, modality, translate, trial)
            sets = [evaluation_set(source, misaligned=misaligned, presets=preset or ())]
        else:  # needs the data of the training, which may not be at hand
            sets = [*held_out_sets(model.config), *grey_sets(model.config)]
        method = KReciprocal() if rerank else None
        results = [
            r for data in sets for r in evaluate_model(model, data, cache, typed_command(), flip=flip, rerank=method)
        ]
        _write_and_print(results, run)
        if sets and (calibrate or not on):
            write_calibrations(run, calibrations(model, sets[0], cache))


@app.command(rich_help_panel=TRAINING)
def pool(
    runs: Annotated[list[Path], typer.Argument(help="Runs or exported models, one for each fold of leave_out.")],
    pairs: Annotated[Path, typer.Option(help="Folder of the pairs that their configurations leave out.")],
    name: Annotated[str, typer.Option(help="Name for the networks together.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json.")],
    misaligned: Misaligned = False,
    cache: Cache = CACHE,
) -> None:
    """Evaluate the networks of all folds and pool their ranks.

    Each network is evaluated on the frames that its training left out.
    """
    with one_line_errors():
        from training.data.sources import Pairs
        from training.evaluation.model_loader import load_model
        from training.evaluation.pooled_pairs import evaluate_pooled

        source = Pairs(kind="pairs", root=pairs, name=pairs.name)
        models = [load_model(run) for run in runs]
        _write_and_print(evaluate_pooled(models, source, name, cache, typed_command(), misaligned=misaligned), out)


@app.command(rich_help_panel=TRAINING)
def table(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs or exported models, or result files.")],
    latex: Annotated[bool, typer.Option(help="Print LaTeX instead of Markdown.")] = False,
    mixed: Annotated[bool, typer.Option(help="Allow results of different protocols in one table.")] = False,
    join: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="RegDB: average the trials, a model each, into rows of this name."),
    ] = None,
) -> None:
    """Print one table of any results."""
    with one_line_errors():
        from training.evaluation import table as tables
        from training.evaluation.result import join_trials, read_results

        results = [result for path in runs for result in read_results(path)]
        if join is not None:
            results = join_trials(results, join)
        typer.echo((tables.latex if latex else tables.markdown)(results, mixed=mixed))


def _write_and_print(results: Sequence[Result], folder: Path) -> None:
    from training.evaluation.result import update_results
    from training.evaluation.table import markdown

    update_results(folder, results)
    typer.echo(markdown(results, mixed=True))
