"""The commands that learn the visible → infrared translator and compare it; imports wait until one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from vireid.errors import clear_errors
from vireid.typed import typed_command

if TYPE_CHECKING:
    from training.data.translation import Translator

__all__ = ["translator"]

translator = typer.Typer(no_args_is_help=True, help="Learn to make infrared pictures of visible ones.")


@translator.command()
def train(
    frames: Annotated[list[Path], typer.Argument(help="Folders with aligned frames in visible/ and infrared/.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    without: Annotated[Path | None, typer.Option(help="Pairs whose frames take no part.")] = None,
    held_out: Annotated[float, typer.Option(min=0, max=0.99, help="Share of frames kept for `compare`.")] = 0.1,
    steps: Annotated[int, typer.Option(min=1, help="Batches of 16 windows.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Decides windows, split and weights.")] = 0,
) -> None:
    """Train a translator on windows of aligned frames (300 steps: about two minutes on one core)."""
    with clear_errors():
        from training.data.folds import frames_of_pairs
        from training.translator.learning import LearningConfig, learn

        left_out = frames_of_pairs(without) if without else frozenset[str]()
        config = LearningConfig(frames=tuple(frames), without=left_out, held_out=held_out, steps=steps, seed=seed)
        learn(config, out)
        Console().print(f"translator: {out}", highlight=False)


File = Annotated[Path, typer.Argument(help="What `vireid translator train` wrote.")]
Infrared = Annotated[
    Path | None, typer.Option(help="Folder of real infrared crops, to compare the statistics translations too.")
]


@translator.command()
def compare(
    file: File,
    infrared: Infrared = None,
    out: Annotated[Path | None, typer.Option(help="Folder for qualities.json, for `vireid results render`.")] = None,
) -> None:
    """Measure it on windows of the frames it kept out, beside the translations that need no training."""
    with clear_errors():
        from training.translator.comparing import TranslatorComparison
        from training.translator.learning import LearningConfig, compare
        from training.translator.network import load_network

        translators = _translators(file, infrared)
        config = LearningConfig.model_validate(load_network(file)[1])
        qualities = compare(config, translators)
        table = Table("translation", "PSNR (dB)", "SSIM", "windows")
        for name, quality in qualities.items():
            table.add_row(name, f"{quality.psnr:.2f}", f"{quality.ssim:.3f}", str(quality.windows))
        Console().print(table)
        if out:
            TranslatorComparison.of(file, config, qualities, typed_command()).write(out)


@translator.command()
def show(
    file: File,
    infrared: Infrared = None,
    people: Annotated[int, typer.Option(min=1, help="Drawn people to show.")] = 3,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("translator.png"),
) -> None:
    """Draw made-up people beside what the translations make of them."""
    with clear_errors():
        from models.card import Modality
        from training.data.translation import translate_by_name
        from training.evaluation.pictures.translations import draw_translations
        from vireid.drawing import draw_person

        drawn = [draw_person(number, Modality.VISIBLE) for number in range(people)]
        columns = {"drawn": drawn}
        for name, translate in _translators(file, infrared).items():
            if name != "statistics, amplitude":  # it holds the coarse light and shade of a real picture
                columns[name] = [translate_by_name(p, f"{n:04d}", translate) for n, p in enumerate(drawn)]
        draw_translations(columns).savefig(out)
        Console().print(str(out), highlight=False)


def _translators(file: Path, infrared: Path | None) -> dict[str, Translator]:
    """The learnt translation, without its drawn gamma, after those that need no training."""
    from training.data.statistics import StatisticsTranslation, infrared_pictures
    from training.data.translation import ChannelTranslation
    from training.translator.translation import LearntTranslation

    translators: dict[str, Translator] = {"channel": ChannelTranslation()}
    if infrared:
        pictures = infrared_pictures(infrared)
        translators["statistics, moments"] = StatisticsTranslation(pictures, "moments")
        translators["statistics, amplitude"] = StatisticsTranslation(pictures, "amplitude")
    return translators | {"learnt": LearntTranslation(file, gamma=(1, 1))}
