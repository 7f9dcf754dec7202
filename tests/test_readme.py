"""The commands of the README and of the documentation run against a real server, in the order a reader meets them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from models.card import Modality
from tests.drawing import write_people
from tests.server.stub_model import write_model
from vireid.drawing import draw_person

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SERVING = [
    "README.md",
    "docs/index.md",
    "docs/guides/search.md",
    "docs/guides/import.md",
    "docs/guides/galleries.md",
    "docs/guides/secure.md",
]
TRAINING = ["docs/guides/train.md", "docs/guides/evaluate.md"]
"""The second page uses the model that the first one trains."""
ADDRESS = "http://127.0.0.1:8000"
SHORT = {"epochs=40": "epochs=4"}
"""Replacements that keep the suite short: only the number of epochs."""

Reader = tuple[Path, dict[str, str]]


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language. ``bash`` and ``python`` run; ``sh`` needs make, Docker or absent data."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Return a folder with the files that the pages assume and the environment of commands; a server is running."""
    folder = tmp_path_factory.mktemp("reader")
    from PIL import Image

    for name, modality, camera in (("day", Modality.VISIBLE, 1), ("night", Modality.INFRARED, 3)):
        (folder / name).mkdir()
        for person in range(1, 5):
            crop = Image.fromarray(draw_person(person, modality))
            crop.save(folder / name / f"{person:04d}_c{camera}_0.png")
    write_people(folder / "crops", range(24), images=4)
    write_model(folder / "served" / "standin")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIREID_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "VIREID_PORT": str(port),
        "VIREID_DATA_DIR": str(folder / "data"),
        "VIREID_MODEL_DIR": str(folder / "served"),
        "PYTHONWARNINGS": "default",
    }
    server = subprocess.Popen(["vireid", "serve"], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/readyz")
        address = f"http://127.0.0.1:{port}"
        yield folder, environment | {"address": address, "VIREIDCLI_URL": address}
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait(url: str) -> None:
    for _ in range(300):
        try:
            if urlopen(url, timeout=5).status == 200:
                return
        except OSError:  # not listening yet, or slow while models load
            time.sleep(0.2)
    raise TimeoutError(f"{url} did not answer")


def run_commands(page: str, reader: Reader) -> int:
    """Run the commands of a page; return their number."""
    folder, environment = reader
    if shutil.which("curl") is None:
        pytest.skip("the HTTP examples need curl")
    commands = blocks(page, "bash")
    for command in commands:
        script = command
        for long, short in SHORT.items():
            script = script.replace(long, short)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, environment["address"])],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{page}\n{script}\n{done.stdout}\n{done.stderr}"
    return len(commands)


@pytest.mark.parametrize("page", SERVING)
@pytest.mark.timeout(600)
def test_serving_commands_of_the_documentation_run(page: str, reader: Reader) -> None:
    assert run_commands(page, reader) > 0


@pytest.mark.timeout(900)  # it trains: two minutes on a slow core, more beside other tests
def test_training_commands_of_the_documentation_run(reader: Reader) -> None:
    assert all(run_commands(page, reader) > 0 for page in TRAINING)


def test_every_page_with_commands_is_run() -> None:
    pages = [path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *DOCS.rglob("*.md"))]
    assert {page for page in pages if blocks(page, "bash")} == {*SERVING, *TRAINING}
    assert sum(len(blocks(page, "bash")) for page in pages) >= 8


def test_python_of_the_documentation_runs(reader: Reader) -> None:
    folder, environment = reader
    found = [block for path in DOCS.rglob("*.md") for block in blocks(str(path.relative_to(ROOT)), "python")]
    assert found
    for block in found:
        code = block.replace(ADDRESS, environment["address"]).replace('"hall"', '"python"')
        subprocess.run(
            ["vireid", "index", "night", "--gallery", "python", "--modality", "infrared"],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(script: Path, reader: Reader) -> None:
    folder, environment = reader
    words = [sys.executable, str(script), environment["address"]]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("target", ["serve", "test", "bench", "lint", "docs"])
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "RESULTS.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_local_links_point_to_files(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text("utf-8"))
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_readme_has_under_400_words_of_prose() -> None:
    prose = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"\w[\w'’-]*", re.sub(r"\]\([^)]*\)", "]", prose))) < 400
