"""What a comparison of translations leaves behind."""

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
    """Likeness of each translation to the true infrared pictures of windows that none of them learnt from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    translator: str
    """sha256 of the file."""
    learning: TranslatorConfig
    qualities: dict[str, Quality]
    command: str
    environment: Environment

    @classmethod
    def of(cls, file: Path, learning: TranslatorConfig, qualities: dict[str, Quality], command: str) -> Self:
        """Join what was measured of the translator in ``file`` with where and how."""
        return cls(
            translator=hashlib.sha256(file.read_bytes()).hexdigest(),
            learning=learning,
            qualities=qualities,
            command=command,
            environment=Environment.here("cpu", "fp32"),
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            OSError: the file cannot be read.
            pydantic.ValidationError: it holds something else.
        """
        return cls.model_validate_json(path.read_text("utf-8"))

    def write(self, folder: Path) -> None:
        """Write ``FOLDER/qualities.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / QUALITIES).write_text(self.model_dump_json() + "\n", "utf-8")

    def markdown(self) -> str:
        """A table, and what was measured."""
        lines = ["| Translation | PSNR (dB) | SSIM | Windows |", "| --- | --- | --- | --- |"]
        lines += [f"| {name} | {q.psnr:.2f} | {q.ssim:.3f} | {q.windows} |" for name, q in self.qualities.items()]
        learning = self.learning
        told = (
            f"Means over windows of {learning.size[0]} × {learning.size[1]} from {100 * learning.held_out:g} % of the "
            f"frames in {', '.join(map(str, learning.frames))}, which it did not learn from; {len(learning.without)} "
            f"frames took no part in anything. Both pictures are stretched to their own percentiles. Learnt in "
            f"{learning.steps} steps of {learning.batch} windows, seed {learning.seed}. `{self.command}`"
        )
        return "\n".join(lines) + f"\n\n{told}\n"
