"""The commands that learn the visible → infrared translator and compare it; imports wait until one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from vireid.errors import clear_errors

__all__ = ["translator"]

translator = typer.Typer(no_args_is_help=True, help="Learn to make infrared pictures of visible ones.")


@translator.command()
def train(
    frames: Annotated[list[Path], typer.Argument(help="Folders with aligned frames in visible/ and infrared/.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    without: Annotated[Path | None, typer.Option(help="Pairs whose frames take no part.")] = None,
    held_out: Annotated[float, typer.Option(min=0, max=0.99, help="Share of frames kept for `compare`.")] = 0.1,
    steps: Annotated[int, typer.Option(min=1, help="Batches of 16 windows.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Decides windows, split and weights.")] = 0,
) -> None:
    """Train a translator on windows of aligned frames (1500 steps: some minutes on one core)."""
    with clear_errors():
        from training.data.folds import frames_of_pairs
        from training.translator.learning import LearningConfig, learn

        left_out = frames_of_pairs(without) if without else frozenset[str]()
        config = LearningConfig(frames=tuple(frames), without=left_out, held_out=held_out, steps=steps, seed=seed)
        learn(config, out)
        Console().print(f"translator: {out}", highlight=False)


@translator.command()
def compare(
    file: Annotated[Path, typer.Argument(help="What `vireid translator train` wrote.")],
    infrared: Annotated[
        Path | None, typer.Option(help="Folder of real infrared crops, to compare the statistics translations too.")
    ] = None,
) -> None:
    """Measure it on windows of the frames it kept out, beside the translations that need no training."""
    with clear_errors():
        from training.data.statistics import StatisticsTranslation, infrared_pictures
        from training.data.translation import ChannelTranslation, Translator
        from training.translator.learning import LearningConfig, compare
        from training.translator.network import load_network
        from training.translator.translation import LearntTranslation

        translators: dict[str, Translator] = {"channel": ChannelTranslation()}
        if infrared:
            pictures = infrared_pictures(infrared)
            translators["statistics, moments"] = StatisticsTranslation(pictures, "moments")
            translators["statistics, amplitude"] = StatisticsTranslation(pictures, "amplitude")
        translators["learnt"] = LearntTranslation(file, gamma=(1, 1))
        config = LearningConfig.model_validate(load_network(file)[1])
        table = Table("translation", "PSNR (dB)", "SSIM", "windows")
        for name, quality in compare(config, translators).items():
            table.add_row(name, f"{quality.psnr:.2f}", f"{quality.ssim:.3f}", str(quality.windows))
        Console().print(table)
