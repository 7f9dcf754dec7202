"""MkDocs hooks: generated reference pages, pages from the repository root, and equations as MathML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from docs.reference_pages import command_line, http_api, problem_types, training_configuration

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ("RESULTS", "CONTRIBUTING", "CHANGELOG")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")
_IMAGE = re.compile(r"!\[([^\]]*)\]\((?!https?:|assets/)([^)]+)\)")
_FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
_EQUATION = re.compile(r"\$\$(.+?)\$\$|(?<![\w$])\$([^$\n]+)\$(?![\w$])", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that have no file in ``docs``."""
    pages = {
        "reference/http-api.md": http_api(),
        "reference/problem-types.md": problem_types(),
        "reference/training-config.md": training_configuration(),
        "reference/command-line.md": command_line(),
    }
    for name in ROOT_PAGES:
        text = (ROOT / f"{name}.md").read_text("utf-8")
        for _, path in _IMAGE.findall(text):
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
        pages[f"{name.lower()}.md"] = _LINK.sub(_site_link, text)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def _site_link(found: re.Match[str]) -> str:
    """Return a link to a page of the site; a link to another file of the repository becomes its path."""
    text, target = found.groups()
    if target.startswith("docs/"):
        return f"[{text}]({target.removeprefix('docs/')})"
    if target.removesuffix(".md") in ROOT_PAGES:
        return f"[{text}]({target.lower()})"
    return f"`{target}`"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Convert ``$$…$$`` and ``$…$`` outside code blocks to MathML, which browsers show without a script."""
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _EQUATION.sub(_mathml, part) for part in parts)


def _mathml(found: re.Match[str]) -> str:
    block, inline = found.groups()
    return convert(block or inline, display="block" if block else "inline")
