"""Result of a comparison of translators."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from training.environment import Environment
from training.translation.learning import Quality, TranslatorConfig

__all__ = ["QUALITIES", "TranslatorComparison"]

QUALITIES = "qualities.json"


class TranslatorComparison(BaseModel):
    """Similarity of each translation to the real infrared images of windows that were not used for training."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    translator: str
    """sha256 of the translator's file."""
    learning: TranslatorConfig
    qualities: dict[str, Quality]
    command: str
    environment: Environment

    @classmethod
    def of(cls, file: Path, learning: TranslatorConfig, qualities: dict[str, Quality], command: str) -> Self:
        """Combine the measured qualities with the translator in ``file``, the command and the machine."""
        return cls(
            translator=hashlib.sha256(file.read_bytes()).hexdigest(),
            learning=learning,
            qualities=qualities,
            command=command,
            environment=Environment.here("cpu", "fp32"),
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file written by :meth:`write`.

        Raises:
            OSError: the file cannot be read.
            pydantic.ValidationError: it has other contents.
        """
        return cls.model_validate_json(path.read_text("utf-8"))

    def write(self, folder: Path) -> None:
        """Write ``FOLDER/qualities.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / QUALITIES).write_text(self.model_dump_json() + "\n", "utf-8")

    def markdown(self) -> str:
        """Return a table and a description of the measurement."""
        lines = ["| Translation | PSNR (dB) | SSIM | Windows |", "| --- | --- | --- | --- |"]
        lines += [f"| {name} | {q.psnr:.2f} | {q.ssim:.3f} | {q.windows} |" for name, q in self.qualities.items()]
        learning = self.learning
        description = (
            f"Means over windows of {learning.size[0]} × {learning.size[1]} from {100 * learning.held_out:g} % of the "
            f"frames in {', '.join(map(str, learning.frames))}, which were held out of training; "
            f"{len(learning.without)} frames were excluded. Both images are stretched to their percentiles. Trained "
            f"for {learning.steps} steps of {learning.batch} windows, seed {learning.seed}. `{self.command}`"
        )
        return "\n".join(lines) + f"\n\n{description}\n"
