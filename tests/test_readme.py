"""The README is true: its commands run, in the order a reader meets them, against a real server."""

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
from tests.server.standin import write_model
from vireid.drawing import draw_person

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8000"
SHORT = {"epochs=40": "epochs=4"}
"""What is changed so that the suite stays short: nothing but the number of epochs."""


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language. ``bash`` and ``python`` are run here; ``sh`` needs make, Docker or absent data."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder as the README supposes it, with a server on a free port; and the environment to run commands in."""
    folder = tmp_path_factory.mktemp("reader")
    from PIL import Image

    for name, modality, camera in (("day", Modality.VISIBLE, 1), ("night", Modality.INFRARED, 3)):
        (folder / name).mkdir()
        for person in range(1, 5):
            picture = Image.fromarray(draw_person(person, modality))
            picture.save(folder / name / f"{person:04d}_c{camera}_0.png")
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
        except OSError:  # not there yet, or slow while models load
            time.sleep(0.2)
    raise TimeoutError(f"{url} did not answer")


@pytest.mark.timeout(900)  # it trains: two minutes on a slow core, more beside other tests
def test_every_command_of_the_readme_runs(reader: tuple[Path, dict[str, str]]) -> None:
    folder, environment = reader
    address = environment["address"]
    if shutil.which("curl") is None:
        pytest.skip("the README's HTTP examples need curl")
    commands = blocks("bash")
    assert len(commands) >= 8
    for command in commands:
        script = command
        for long, short in SHORT.items():
            script = script.replace(long, short)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, address)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def test_the_python_of_the_readme_runs(reader: tuple[Path, dict[str, str]]) -> None:
    folder, environment = reader
    for block in blocks("python"):
        code = block.replace(ADDRESS, environment["address"])
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


@pytest.mark.parametrize("target", ["serve", "test", "bench", "lint"])
def test_the_targets_of_make_are_there(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_file_the_readme_points_to_is_there() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
