"""Import rules of docs/architecture.md, checked in the source and in fresh interpreters."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.import_graph import ROOT, cycles, file_graph, folder_graph, folder_of, imported_names, source_files

PACKAGES = ("models", "training", "server", "vireid")
TRAINING_ONLY = {"torch", "torchvision", "timm", "training", "onnx", "onnxscript", "sklearn", "scipy", "matplotlib"}
WEB_ONLY = {"fastapi", "starlette", "uvicorn"}
SHARED_MODELS = {"models.card", "models.cores", "models.crop_files"}
"""Modules of ``models`` that the server may import."""
ALLOWED_BELOW: dict[str, set[str]] = {
    "server.hardware": set(),
    "server.domain": set(),
    "server.storage": {"domain"},
    "server.index": {"domain", "hardware"},
    "server.embedding": {"domain", "hardware"},
    "server.gallery": {"domain", "hardware", "storage", "index", "embedding"},
    "server.jobs": {"domain", "hardware", "storage", "index", "embedding", "gallery"},
    "server.api": {"domain", "hardware", "storage", "index", "embedding", "gallery", "jobs", "settings"},
}
"""Folders and root modules of ``server`` that each folder of ``server`` may import."""
TRAINING_LAYERS = (
    {"config_base", "environment", "files", "distributed", "run_log", "optimisation"},
    {"data"},
    {"translation", "losses"},
    {"methods"},
    {"config"},
    {"checkpoint"},
    {"evaluation"},
    {"trainer"},
    {"export"},
    {"experiments"},
)
"""Folders and root modules of ``training``: each imports only what stands in an earlier set, and
``optimisation`` the ``config_base`` beside it."""


def modules_loaded_by(statement: str) -> set[str]:
    """Return the modules in memory after a statement, by full name and by top-level package."""
    script = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    names = json.loads(output.stdout.splitlines()[-1])
    return packages(names) | set(names)


def modules_of(package: str) -> list[str]:
    return [package] + [m.name for m in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")]


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def imports_of(package: str) -> dict[str, set[str]]:
    """Return the names that each module of a package imports."""
    return {module: imported_names(path) for module, path in source_files(package).items()}


def within(name: str, allowed: set[str]) -> bool:
    """Whether a dotted name is one of the allowed modules or a symbol or submodule of one."""
    return any(name == module or name.startswith(f"{module}.") for module in allowed)


# Packages


def test_loading_every_server_module_loads_nothing_of_training() -> None:
    modules = [m for m in modules_of("server") if "migrations.env" not in m and "migrations.versions" not in m]
    loaded = modules_loaded_by("\n".join(f"import {name}" for name in modules))
    assert not loaded & TRAINING_ONLY
    assert {name for name in loaded if name.startswith("models.")} == SHARED_MODELS
    assert {name for name in loaded if name.startswith("vireid.") and not within(name, {"vireid.schemas"})} == set()


def test_server_source_imports_only_shared_modules_of_other_packages() -> None:
    for module, names in imports_of("server").items():
        assert not packages(names) & TRAINING_ONLY, module
        outside = {name for name in names if packages({name}) & {"models", "vireid"}}
        shared = SHARED_MODELS | ({"vireid.schemas"} if within(module, {"server.api"}) else set())
        assert {name for name in outside if not within(name, shared)} == set(), module


def test_models_import_neither_training_nor_server() -> None:
    for module, names in imports_of("models").items():
        assert not packages(names) & {"training", "server", "vireid"}, module


def test_training_imports_neither_server_nor_web_frameworks() -> None:
    for module, names in imports_of("training").items():
        assert not packages(names) & ({"server", "vireid"} | WEB_ONLY), module


@pytest.mark.parametrize("module", sorted(SHARED_MODELS))
def test_modules_shared_with_the_server_load_neither_torch_nor_numpy(module: str) -> None:
    assert not modules_loaded_by(f"import {module}") & {"torch", "numpy", "timm", "openvino"}


@pytest.mark.parametrize("module", ["vireid.client", "vireid.cli", "vireid.drawing", "vireid.schemas"])
def test_client_command_and_schemas_load_neither_server_nor_training(module: str) -> None:
    if module not in source_files("vireid"):
        pytest.skip(f"{module} does not exist yet")
    assert not modules_loaded_by(f"import {module}") & {
        "server",
        "training",
        "torch",
        "onnxruntime",
        "faiss",
        "fastapi",
    }


def test_wire_schemas_import_only_pydantic_and_the_model_card() -> None:
    allowed = sys.stdlib_module_names | {"pydantic", "pydantic_core"}
    for module, names in imports_of("vireid").items():
        if within(module, {"vireid.schemas"}):
            outside = {name for name in names if not within(name, {"models.card", "vireid.schemas"})}
            assert packages(outside) <= allowed, module


# Folders of the server


def test_web_frameworks_appear_only_in_the_api_and_the_app() -> None:
    for module, names in imports_of("server").items():
        if not within(module, {"server.api", "server.app"}):
            assert not packages(names) & (WEB_ONLY - ({"uvicorn"} if module == "server.runner" else set())), module


@pytest.mark.parametrize("folder", sorted(ALLOWED_BELOW))
def test_server_folders_import_only_folders_below_them(folder: str) -> None:
    allowed = {f"server.{name}" for name in ALLOWED_BELOW[folder]} | {folder, "server"}
    for module, targets in file_graph("server").items():
        if folder_of(module) == folder:
            imported = {folder_of(target) for target in targets}
            assert imported <= allowed, module


# Folders of training


def test_training_folders_import_only_earlier_layers() -> None:
    layer_of = {f"training.{name}": layer for layer, names in enumerate(TRAINING_LAYERS) for name in names}
    graph = folder_graph(file_graph("training"))
    graph.pop("training")
    assert graph.keys() == layer_of.keys()
    graph["training.optimisation"] -= {"training.config_base"}
    for folder, targets in graph.items():
        assert {target for target in targets if layer_of[target] >= layer_of[folder]} == set(), folder


# Cycles


@pytest.mark.parametrize("package", PACKAGES)
def test_files_of_a_package_import_one_another_without_cycles(package: str) -> None:
    assert cycles(file_graph(package)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_of_a_package_import_one_another_without_cycles(package: str) -> None:
    assert cycles(folder_graph(file_graph(package))) == []


def test_a_cycle_in_a_graph_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": {"e"}}) == [
        ["a", "b", "c"],
        ["e", "f"],
    ]


def test_imports_inside_functions_and_relative_imports_are_edges(tmp_path: Path) -> None:
    package = tmp_path / "house"
    (package / "roof").mkdir(parents=True)
    for name in ("__init__.py", "roof/__init__.py"):
        (package / name).write_text("")
    (package / "door.py").write_text("def open():\n    from house.roof import tile\n")
    (package / "roof" / "tile.py").write_text("from ..door import open\n")
    assert file_graph("house", tmp_path) == {
        "house": set(),
        "house.door": {"house.roof.tile"},
        "house.roof": set(),
        "house.roof.tile": {"house.door"},
    }
