"""The import graph of a package, read from its source.

An edge leads from a module to every module of the project that its source names in an import statement at any depth:
inside functions and under ``TYPE_CHECKING``, too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

Graph = Mapping[str, set[str]]


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return the dotted name of a source file; a package's ``__init__.py`` has the name of the package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files(package: str, root: Path = ROOT) -> dict[str, Path]:
    """Return the source files of a package by dotted module name."""
    return {module_name(path, root): path for path in sorted((root / package).rglob("*.py"))}


def imported_names(path: Path, root: Path = ROOT) -> set[str]:
    """Return every dotted name that a file imports: ``import a.b`` → a.b; ``from a import b`` → a.b."""
    parent = ".".join(path.relative_to(root).parent.parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), parent) if node.level else node.module or ""
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def file_graph(package: str, root: Path = ROOT) -> dict[str, set[str]]:
    """Return the modules of a package that each of its modules imports."""
    files = source_files(package, root)
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        targets = {_module_of(name, files) for name in imported_names(path, root)}
        graph[module] = {target for target in targets if target is not None and target != module}
    return graph


def _module_of(name: str, modules: Iterable[str]) -> str | None:
    """Return the module that an imported name belongs to: itself, or the module that defines the symbol."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else None


def folder_graph(graph: Graph) -> dict[str, set[str]]:
    """Return the graph of a package's top-level folders. A file beside them is a node of its own."""
    folders: dict[str, set[str]] = {}
    for module, targets in graph.items():
        folder = folder_of(module)
        folders.setdefault(folder, set()).update(folder_of(target) for target in targets)
        folders[folder].discard(folder)
    return folders


def folder_of(module: str) -> str:
    """Return the package and the first name below it: server.jobs.imports.handler → server.jobs."""
    return ".".join(module.split(".")[:2])


def cycles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components of more than one node, sorted (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component: list[str] = []
            while not component or component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(found)
