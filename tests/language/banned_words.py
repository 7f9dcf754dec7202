"""Check of tracked files for banned words.

``python -m tests.language.banned_words`` prints every finding; the exit code is 1 if there are any.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = Path(__file__).with_name("banned_words.txt")
SUFFIXES = {".py", ".md", ".js", ".html", ".css", ".yaml", ".yml", ".toml", ".cff"}
UNCHECKED = (
    "results/",
    "benchmarks/report/",
    "benchmarks/results/",
    "models/zoo/",
    "tests/fixtures/",
    "tests/web/vendor/",
)
"""Folders with generated or third-party files."""
WEB_PAGE = ("server/web/", "tests/web/")
WORDS_OF_WEB_PAGE = {"picture", "pictures"}
"""The web page uses these words for crops and frames, which its users may not distinguish."""


def read_words(text: str) -> dict[str, str]:
    """Return the replacement or reason of each banned word."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {word.strip(): reason.strip() for word, _, reason in (line.partition("=") for line in lines)}


def find(text: str, words: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Return line number and word of every banned word in a text."""
    for word in words:
        pattern = r"\s+".join(map(re.escape, word.split()))
        # A quoted name, a member and a keyword argument are names of the HTTP contract or of a file format.
        for match in re.finditer(rf"(?<![\w.\"'`-]){pattern}(?![\w=-])", text, re.IGNORECASE):
            yield text.count("\n", 0, match.start()) + 1, word


def main() -> int:
    """Print every finding; return the exit code."""
    words = read_words(WORDS.read_text("utf-8"))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = 0
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix not in SUFFIXES or name.startswith(UNCHECKED) or not path.is_file():
            continue
        allowed = WORDS_OF_WEB_PAGE if name.startswith(WEB_PAGE) else set()
        for line, word in find(path.read_text("utf-8"), {k: v for k, v in words.items() if k not in allowed}):
            print(f"{name}:{line}: {word!r} is banned; use: {words[word]}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
