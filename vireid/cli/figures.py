"""The commands that draw figures of a run or a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vireid.cli.console import TRAINING, one_line_errors
from vireid.cli.data_options import CACHE, Cache, On, RunArgument, source_from_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.evaluation.evaluator import EvaluationSet
    from training.evaluation.model_loader import LoadedModel

__all__ = ["app"]

app = typer.Typer()

Out = Annotated[Path, typer.Option(help="PNG file to write.")]


@app.command(rich_help_panel=TRAINING)
def ranklist(
    run: RunArgument,
    out: Out = Path("ranklist.png"),
    on: On = None,
    queries: Annotated[int, typer.Option(min=1, help="Number of queries.")] = 6,
    hits: Annotated[int, typer.Option(min=1, help="Number of hits of each.")] = 8,
    cache: Cache = CACHE,
) -> None:
    """Draw queries with their first hits, right and wrong marked."""
    with one_line_errors():
        from training.evaluation.figures.model_figures import plot_ranklists

        _save(plot_ranklists(*_model_and_set(run, on), cache, queries, hits), out)


@app.command(rich_help_panel=TRAINING)
def heatmap(
    run: Annotated[Path, typer.Argument(help="Folder of a run (an exported graph has no gradients).")],
    out: Out = Path("heatmap.png"),
    on: On = None,
    images: Annotated[int, typer.Option(min=1, help="Number of crops of each modality.")] = 6,
    cache: Cache = CACHE,
) -> None:
    """Draw where a network looks, in each modality."""
    with one_line_errors():
        from training.checkpoint import load_trained
        from training.evaluation.figures.model_figures import plot_heatmaps

        network = load_trained(run / "model.pt").network
        _save(plot_heatmaps(network, *_model_and_set(run, on), cache, images), out)


@app.command("embedding-map", rich_help_panel=TRAINING)
def embedding_map(
    run: RunArgument,
    out: Out = Path("embedding-map.png"),
    on: On = None,
    identities: Annotated[int, typer.Option(min=2, help="Number of identities.")] = 12,
    cache: Cache = CACHE,
) -> None:
    """Draw embeddings in two dimensions (t-SNE)."""
    with one_line_errors():
        from training.evaluation.figures.model_figures import plot_embedding_map

        _save(plot_embedding_map(*_model_and_set(run, on), cache, identities), out)


@app.command(rich_help_panel=TRAINING)
def histograms(run: RunArgument, out: Out = Path("histograms.png"), on: On = None, cache: Cache = CACHE) -> None:
    """Draw the distances of genuine and impostor pairs."""
    with one_line_errors():
        from training.evaluation.figures.model_figures import plot_histograms

        _save(plot_histograms(*_model_and_set(run, on), cache), out)


@app.command(rich_help_panel=TRAINING)
def curves(run: RunArgument, out: Out = Path("curves.png")) -> None:
    """Draw losses, rates and validation over the epochs of a run."""
    with one_line_errors():
        from training.evaluation.figures.model_figures import plot_curves

        _save(plot_curves(run), out)


def _model_and_set(run: Path, on: str | None) -> tuple[LoadedModel, EvaluationSet]:
    """Return a model and the crops to draw: its held-out identities, or the data set ``on``."""
    from training.evaluation.evaluator import evaluation_set, held_out_sets
    from training.evaluation.model_loader import load_model

    model = load_model(run)
    sets = [evaluation_set(source_from_options(on))] if on else held_out_sets(model.config)
    if not sets:
        raise ValueError(f"{run} has no held-out identities: name a data set with --on")
    return model, sets[0]


def _save(figure: Figure, out: Path) -> None:
    figure.savefig(out)
    typer.echo(out)
