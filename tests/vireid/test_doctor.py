"""``vireid doctor`` on good and on faulty installations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from server.runner import bind
from server.storage.sql_store import SqlStore
from tests.server.stub_model import write_model
from vireid.cli import app
from vireid.cli.doctor_checks import IDENTITY_GRAPH, Check, Status, run_checks


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and an empty data directory; the settings name both."""
    write_model(tmp_path / "zoo" / "stub")
    monkeypatch.setenv("VIREID_MODEL_DIR", str(tmp_path / "zoo"))
    monkeypatch.setenv("VIREID_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("VIREID_PORT", "0")
    monkeypatch.setenv("VIREID_DEVICE", "cpu")
    return tmp_path


def checks_by_name() -> dict[str, Check]:
    return {check.name: check for check in run_checks()}


def test_a_good_installation_passes_every_check_and_is_not_changed(installation: Path) -> None:
    before = sorted(installation.rglob("*"))
    checks = checks_by_name()
    assert [check for check in checks.values() if check.status is Status.FAIL] == []
    assert checks["model stub"].found.startswith("fp32 intact; fp32 loaded on CPU")
    assert checks["default model"].found == "stub"
    assert "runs on CPU" in checks["onnxruntime"].found
    assert "obeys filters" in checks["faiss"].found
    assert checks["settings"].found == "VIREID_DATA_DIR, VIREID_DEVICE, VIREID_MODEL_DIR, VIREID_PORT"
    assert sorted(installation.rglob("*")) == before


def test_the_identity_graph_returns_its_input() -> None:
    session = onnxruntime.InferenceSession(IDENTITY_GRAPH, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"x": np.array(7, np.float32)})
    assert out == 7


def test_a_changed_model_file_fails_by_its_hash(installation: Path) -> None:
    with (installation / "zoo" / "stub" / "model.onnx").open("ab") as file:
        file.write(b"x")
    check = checks_by_name()["model stub"]
    assert check.status is Status.FAIL
    assert "sha256" in check.found


def test_files_of_precisions_that_are_not_loaded_are_checked(installation: Path) -> None:
    card = installation / "zoo" / "stub" / "card.json"
    content = json.loads(card.read_text())
    content["precisions"]["int8"] = {"file": "model.int8.onnx", "sha256": "0" * 64}
    card.write_text(json.dumps(content))
    check = checks_by_name()["model stub"]
    assert (check.status, check.found) == (Status.FAIL, "model.int8.onnx: No such file or directory")
    (card.parent / "model.int8.onnx").write_bytes(b"x")
    assert checks_by_name()["model stub"].found == "model.int8.onnx (int8) differs from the file that the card names"


def test_an_invalid_card_fails_and_the_other_models_are_checked(installation: Path) -> None:
    bad = installation / "zoo" / "bad"
    bad.mkdir()
    (bad / "card.json").write_text("{}")
    checks = checks_by_name()
    assert (checks["model bad"].status, checks["model stub"].status) == (Status.FAIL, Status.OK)


def test_a_model_in_a_folder_of_another_name_fails(installation: Path) -> None:
    (installation / "zoo" / "stub").rename(installation / "zoo" / "renamed")
    check = checks_by_name()["model renamed"]
    assert (check.status, check.found) == (Status.FAIL, "its card has the name stub")


def test_an_empty_model_directory_fails_and_names_the_setting(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIREID_MODEL_DIR", str(installation / "nothing"))
    check = checks_by_name()["models"]
    assert (check.status, check.advice) == (Status.FAIL, "set VIREID_MODEL_DIR to a folder of models")


def test_a_missing_default_model_fails(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIREID_MODEL", "other")
    assert checks_by_name()["default model"].status is Status.FAIL


def test_an_unknown_setting_fails_and_the_nearest_known_name_is_suggested(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIREID_DEVISE", "cpu")
    check = checks_by_name()["settings"]
    assert check.status is Status.FAIL
    assert check.found == "unknown setting VIREID_DEVISE; did you mean VIREID_DEVICE?"


def test_a_port_in_use_fails_unless_a_vireid_server_answers_there(
    installation: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        monkeypatch.setenv("VIREID_PORT", str(listener.getsockname()[1]))
        assert checks_by_name()["port"].status is Status.FAIL
    monkeypatch.setenv("VIREID_PORT", url.rpartition(":")[2])
    assert checks_by_name()["port"].found == f"a vireid server answers at {url.removeprefix('http://')}"


def test_a_data_directory_that_is_a_file_fails(installation: Path) -> None:
    (installation / "data").write_text("")
    assert checks_by_name()["data directory"].status is Status.FAIL


def test_the_database_is_checked_unless_a_server_uses_it(installation: Path) -> None:
    store = SqlStore(f"sqlite:///{installation / 'data' / 'vireid.db'}")
    try:
        assert "a running server" in checks_by_name()["database"].found
    finally:
        store.close()
    assert checks_by_name()["database"].found.startswith("intact; 0 galleries, 0 items")


def test_a_damaged_database_fails(installation: Path) -> None:
    (installation / "data").mkdir()
    (installation / "data" / "vireid.db").write_bytes(b"no database" * 1000)
    check = checks_by_name()["database"]
    assert (check.status, check.found) == (Status.FAIL, "file is not a database")


def test_the_command_prints_a_table_and_exits_with_1_if_a_check_fails(installation: Path) -> None:
    good = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert good.exit_code == 0, good.output
    (installation / "zoo" / "stub" / "card.json").unlink()
    bad = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert bad.exit_code == 1
    assert any(line.startswith("fail  models") and "VIREID_MODEL_DIR" in line for line in bad.stdout.splitlines())
