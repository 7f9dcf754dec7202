"""The commands that train the visible → infrared translator and compare it with others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vireid.cli.console import one_line_errors, print_table, typed_command

if TYPE_CHECKING:
    from training.data.translator import Translator

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Train and compare visible → infrared translators.")

File = Annotated[Path, typer.Argument(help="A file that `vireid translator train` has written.")]
Infrared = Annotated[
    Path | None, typer.Option(help="Folder of real infrared crops, to compare the statistics translations too.")
]


@app.command()
def train(
    frames: Annotated[list[Path], typer.Argument(help="Folders with aligned frames in visible/ and infrared/.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    without: Annotated[Path | None, typer.Option(help="Folder of pairs whose frames are left out.")] = None,
    held_out: Annotated[float, typer.Option(min=0, max=0.99, help="Share of frames kept for `compare`.")] = 0.1,
    steps: Annotated[int, typer.Option(min=1, help="Number of batches of 16 windows.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Seed of windows, split and weights.")] = 0,
) -> None:
    """Train a translator on windows of aligned frames.

    300 steps take about two minutes on one core.
    """
    with one_line_errors():
        from training.data.frame_folds import frames_of_pairs
        from training.translation.learning import TranslatorConfig, train_translator

        left_out = frames_of_pairs(without) if without else frozenset[str]()
        config = TranslatorConfig(frames=tuple(frames), without=left_out, held_out=held_out, steps=steps, seed=seed)
        train_translator(config, out)
        typer.echo(f"translator: {out}")


@app.command()
def compare(
    file: File,
    infrared: Infrared = None,
    out: Annotated[Path | None, typer.Option(help="Folder for qualities.json, for `vireid results render`.")] = None,
) -> None:
    """Measure a translator beside those that need no training.

    Measured on windows of the frames that its training held out.
    """
    with one_line_errors():
        from training.translation.comparison import TranslatorComparison
        from training.translation.learning import TranslatorConfig, compare_translators
        from training.translation.network import load_network

        translators = _translators(file, infrared)
        config = TranslatorConfig.model_validate(load_network(file)[1])
        qualities = compare_translators(config, translators)
        rows = [(name, f"{q.psnr:.2f}", f"{q.ssim:.3f}", str(q.windows)) for name, q in qualities.items()]
        print_table(("translation", "PSNR (dB)", "SSIM", "windows"), rows)
        if out:
            TranslatorComparison.of(file, config, qualities, typed_command()).write(out)


@app.command()
def show(
    file: File,
    infrared: Infrared = None,
    people: Annotated[int, typer.Option(min=1, help="Number of drawn people.")] = 3,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("translator.png"),
) -> None:
    """Draw people beside their translations."""
    with one_line_errors():
        from models.card import Modality
        from training.data.translator import translate_by_name
        from training.evaluation.figures.translations import draw_translations
        from vireid.drawing import draw_person

        drawn = [draw_person(number, Modality.VISIBLE) for number in range(people)]
        columns = {"drawn": drawn}
        for name, translate in _translators(file, infrared).items():
            if name != "statistics, amplitude":  # it copies the coarse shading of a real image
                columns[name] = [translate_by_name(p, f"{n:04d}", translate) for n, p in enumerate(drawn)]
        draw_translations(columns).savefig(out)
        typer.echo(out)


def _translators(file: Path, infrared: Path | None) -> dict[str, Translator]:
    """Return the translators that need no training, then the learnt one with its gamma fixed."""
    from training.translation.channel import ChannelTranslation
    from training.translation.learnt import LearntTranslation
    from training.translation.statistics import StatisticsTranslation, load_infrared_images

    translators: dict[str, Translator] = {"channel": ChannelTranslation()}
    if infrared:
        images = load_infrared_images(infrared)
        translators["statistics, moments"] = StatisticsTranslation(images, "moments")
        translators["statistics, amplitude"] = StatisticsTranslation(images, "amplitude")
    return translators | {"learnt": LearntTranslation(file, gamma=(1, 1))}
