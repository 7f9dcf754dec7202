"""The walls of the house: what each package may import, seen from a fresh interpreter and from the source."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING_ONLY = {"torch", "torchvision", "timm", "training", "onnx", "onnxscript", "sklearn", "scipy", "matplotlib"}
OF_BOTH = {"models.bfloat", "models.card"}
"""What the server takes of the models: nothing that needs torch."""
WEB_ONLY = {"fastapi", "starlette", "uvicorn"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules, and those of this project in full, that a fresh interpreter holds after ``statement``."""
    script = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    names = json.loads(output.stdout.splitlines()[-1])
    return {name.split(".")[0] for name in names} | set(names)


def modules_of(package: str) -> list[str]:
    return [package] + [m.name for m in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")]


def imports_of(package: str) -> dict[str, set[str]]:
    """Every module that a package's source names in an import, at any depth, by file."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                parent = ".".join(path.relative_to(ROOT).parent.parts)
                base = resolve_name("." * node.level + (node.module or ""), parent) if node.level else node.module or ""
                names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        found[str(path.relative_to(ROOT))] = names
    return found


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_a_fresh_interpreter_with_the_whole_server_holds_nothing_of_training() -> None:
    modules = [m for m in modules_of("server") if "migrations.env" not in m and "migrations.versions" not in m]
    loaded = loaded_by("\n".join(f"import {name}" for name in modules))
    assert not loaded & TRAINING_ONLY
    assert {name for name in loaded if name.startswith("models.")} == OF_BOTH
    assert "vireid" not in loaded


@pytest.mark.parametrize("module", sorted(OF_BOTH))
def test_what_the_server_takes_of_the_models_needs_neither_torch_nor_numpy(module: str) -> None:
    assert not loaded_by(f"import {module}") & {"torch", "numpy", "timm", "openvino"}


@pytest.mark.parametrize("module", ["vireid.client", "vireid.cli", "vireid.drawing"])
def test_the_face_loads_neither_server_nor_training(module: str) -> None:
    assert not loaded_by(f"import {module}") & {"server", "training", "torch", "onnxruntime", "faiss", "fastapi"}


def test_no_source_of_the_server_names_what_lies_behind_the_wall() -> None:
    for file, names in imports_of("server").items():
        assert not top(names) & (TRAINING_ONLY | {"vireid"}), file
        assert all(n in OF_BOTH or n.rpartition(".")[0] in OF_BOTH for n in names if top({n}) == {"models"}), file


def test_models_know_neither_training_nor_server() -> None:
    for file, names in imports_of("models").items():
        assert not top(names) & {"training", "server", "vireid"}, file


def test_training_knows_no_server() -> None:
    for file, names in imports_of("training").items():
        assert not top(names) & {"server", "vireid"} | top(names) & WEB_ONLY, file


def test_http_stays_in_the_api() -> None:
    for file, names in imports_of("server").items():
        if not file.startswith("server/api/") and file != "server/app.py":
            assert not top(names) & WEB_ONLY, file
