"""The wheel and the source archive: built, installed into an empty environment, and serving from there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).resolve().parents[1]
UV = ROOT / ".venv" / "uv" / "bin" / "uv"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not UV.exists(), reason="needs the uv of `make .venv/.dev`")]


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    own = ("VIREID", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that has the locked dependencies and one of the two packages."""
    folder = tmp_path_factory.mktemp(request.param)
    run(UV, "build", f"--{request.param}", "--out-dir", folder / "dist", ROOT, cwd=folder)
    (package,) = (path for path in (folder / "dist").iterdir() if path.suffix in (".whl", ".gz"))
    run(UV, "venv", "--quiet", folder / "env", cwd=folder)
    install = (UV, "pip", "install", "--quiet", "--python", folder / "env" / "bin" / "python")
    run(*install, "--require-hashes", "--requirement", ROOT / "requirements" / "cpu.lock", cwd=folder)
    run(*install, "--no-deps", package, cwd=folder)
    return folder / "env" / "bin" / "vireid"


@contextmanager
def serving(command: Path, folder: Path) -> Iterator[str]:
    env = environment() | {"VIREID_DATA_DIR": str(folder / "data")}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [str(command), "serve", "--port", "0"], cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+?(?=/;)", process.stdout.readline())
            assert found, (folder / "log").read_text()
            yield found[0]
        finally:
            process.terminate()


def test_the_package_serves_with_its_own_models_page_and_reference(command: Path, tmp_path: Path) -> None:
    with serving(command, tmp_path) as url:
        deadline = time.monotonic() + 60
        while httpx2.get(f"{url}/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for path in ("/", "/docs", "/reference.css", "/problems/internal", "/openapi.json"):
            assert httpx2.get(url + path).status_code == 200, path
        models = json.loads(run(command, "models", "list", "--json", "--url", url, cwd=tmp_path))
        assert models["default"] == "baseline"


def test_the_command_has_the_version_of_the_package(command: Path, tmp_path: Path) -> None:
    shown = run(command, "--version", cwd=tmp_path).split()[1]
    assert any(f"-{shown}" in path.name for path in (command.parents[2] / "dist").iterdir())
