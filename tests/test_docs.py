"""The documentation site builds strictly, works offline, and lists every route, command, setting and key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.api.problem_catalogue import CATALOGUE
from server.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site."""
    out = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert re.findall(r"<(?:script|img|iframe)[^>]+src=\"(?:https?:)?//[^\"]+", text) == [], page
        assert re.findall(r"<link[^>]+rel=\"(?:stylesheet|preconnect)\"[^>]+href=\"(?:https?:)?//", text) == [], page


def test_reference_lists_every_route(site: Path) -> None:
    text = (site / "reference" / "http-api.html").read_text("utf-8")
    document = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))
    assert [path for path in document["paths"] if f"<code>{path}</code>" not in text] == []


def test_reference_explains_every_problem_type(site: Path) -> None:
    text = (site / "reference" / "problem-types.html").read_text("utf-8")
    assert [slug for slug in CATALOGUE if f'id="{slug}"' not in text] == []


def test_reference_lists_every_command(site: Path) -> None:
    text = (site / "reference" / "command-line.html").read_text("utf-8")
    for command in ("vireid serve", "vireid train", "vireid gallery erase", "vireid results render"):
        assert f">{command}<" in text


def test_reference_lists_every_setting_and_configuration_key(site: Path) -> None:
    from training.config import TrainingConfig

    settings = (site / "settings.html").read_text("utf-8")
    assert [name for name in Settings.model_fields if f"VIREID_{name.upper()}" not in settings] == []
    keys = (site / "reference" / "training-config.html").read_text("utf-8")
    assert [name for name in TrainingConfig.model_fields if f"<code>{name}</code>" not in keys] == []


def test_equations_are_mathml(site: Path) -> None:
    text = (site / "models" / "index.html").read_text("utf-8")
    assert text.count("<math") >= 10
    assert "$$" not in text


def test_chart_of_the_performance_page_is_that_of_the_report() -> None:
    assert (ROOT / "docs/assets/clients.svg").read_bytes() == (ROOT / "benchmarks/report/clients.svg").read_bytes()
