"""The help of the command: fast to start, complete, and in the words of the API."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import version
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from vireid.cli import app
from vireid.cli.examples import EXAMPLES
from vireid.client import CropWarning, JobState, Scope

THIRD_PARTY_MODULES = {"typer", "annotated_doc", "shellingham"}
"""Modules that ``vireid --help`` may load besides those of Python and of ``vireid``. Each costs start-up time."""


def modules_loaded_by(*words: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after running the command with ``words``."""
    script = f"""
import sys
sys.argv = ["vireid", *{words!r}]
from vireid.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
print(*sys.modules)"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def added_modules(*words: str) -> set[str]:
    """Return the top-level modules that the command adds to a new interpreter, without those of Python."""
    bare = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True)
    added = modules_loaded_by(*words) - set(bare.stdout.split())
    return {name.partition(".")[0] for name in added} - sys.stdlib_module_names


def test_the_help_loads_no_library_but_typer() -> None:
    assert added_modules("--help") - {"vireid"} <= THIRD_PARTY_MODULES
    assert {name for name in modules_loaded_by("--help") if name.startswith("models")} == set()


@pytest.mark.parametrize("words", [("search",), ("gallery", "erase"), ("train",)])
def test_the_help_of_a_command_loads_nothing_that_only_its_run_needs(words: tuple[str, ...]) -> None:
    unwanted = {"httpx2", "numpy", "PIL", "rich", "models", "server", "training", "torch", "onnxruntime", "faiss"}
    assert added_modules(*words, "--help") & unwanted == set()


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


def test_every_summary_fits_into_80_columns() -> None:
    for group in ("", "gallery", "items", "models", "keys", "audit", "dataset", "translator", "results"):
        shown = CliRunner().invoke(app, [*group.split(), "--help"], env={"COLUMNS": "80"}).stdout
        assert "..." not in shown.replace("[ARGS]...", "")


def test_every_command_and_option_has_a_help_text() -> None:
    for path, command in commands(get_command(app)):
        assert command.help, path
        assert [parameter.name for parameter in command.params if not parameter.help] == [], path


def test_every_command_has_an_example_whose_options_exist() -> None:
    runnable = {
        " ".join(path): command for path, command in commands(get_command(app)) if not hasattr(command, "commands")
    }
    assert runnable.keys() == EXAMPLES.keys()
    for name, command in runnable.items():
        words = shlex.split(EXAMPLES[name].partition("vireid ")[2])
        assert " ".join(words).startswith(name), name
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= options, name
        assert command.epilog == f"Example: {EXAMPLES[name]}"


def test_commands_that_show_an_answer_of_the_server_can_print_it_as_json() -> None:
    silent = {"serve", "demo", "embed", "index", "doctor", "mcp", "audit export", "audit confirm-clock", "items image"}
    silent |= {"gallery snapshot", "gallery alias", "gallery unalias"}  # nothing, or a file
    silent |= {"gallery delete", "items delete", "keys delete"}  # the answer is empty
    silent |= {"gallery show", "gallery summary", "items show", "models show", "gallery erase"}  # always JSON
    serving = {" ".join(path): command for path, command in commands(get_command(app)) if "url" in names_of(command)}
    without = {name for name, command in serving.items() if "as_json" not in names_of(command)}
    assert without == silent & serving.keys()


def names_of(command: Any) -> set[str]:
    return {parameter.name for parameter in command.params}


def test_completion_is_offered() -> None:
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout


def test_commands_are_listed_in_the_order_of_use_with_training_last() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    names = (
        "serve",
        "demo",
        "search",
        "index",
        "import",
        "gallery",
        "items",
        "models",
        "keys",
        "audit",
        "jobs",
        "status",
    )
    names += ("train", "evaluate", "export")
    places = [shown.index(f"\n  {name} ") for name in names]
    assert places == sorted(places)
    assert shown.index("Commands:") < places[0]
    assert places[11] < shown.index("Training:") < places[12]


@pytest.mark.parametrize(
    ("words", "option", "values"),
    [
        ("search", "--exclude-warning", CropWarning),
        ("jobs", "--state", JobState),
        ("keys create", "--scope", Scope),
        ("gallery duplicates", "--warning", CropWarning),
    ],
)
def test_options_offer_the_values_of_the_api(words: str, option: str, values: type[StrEnum]) -> None:
    shown = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "200"}).stdout
    assert f"{option} <{'|'.join(values)}>" in shown


def test_a_value_that_is_not_offered_names_those_that_are() -> None:
    done = CliRunner().invoke(app, ["keys", "create", "desk", "--scope", "everything"])
    assert done.exit_code == 2
    assert "expected search, write, admin" in done.stderr


def test_the_help_documents_the_exit_codes() -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    for code in ("0 success", "1 the operation or one of its items failed", "2 invalid arguments", "130 interrupted"):
        assert code in shown


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"vireid {version('vireid')}\n"
