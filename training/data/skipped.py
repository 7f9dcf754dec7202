"""Files and folders that a data set reader skips, by reason."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Skipped"]


class Skipped:
    """Skipped paths by reason."""

    def __init__(self) -> None:
        self.paths: dict[str, list[Path]] = {}

    def add(self, reason: str, path: Path) -> None:
        """Add a path. ``reason`` is a plural, such as ``broken links``."""
        self.paths.setdefault(reason, []).append(path)

    def lines(self) -> list[str]:
        """Return one line for each reason, with its count and first path."""
        return [
            f"skipped {len(paths)} {reason}, such as {min(paths)}"
            for reason, paths in sorted(self.paths.items(), key=lambda item: -len(item[1]))
        ]
