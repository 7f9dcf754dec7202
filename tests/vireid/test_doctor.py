"""The doctor on sound and on ailing houses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from server.gallery.store import SqlStore
from tests.server.standin import write_model
from vireid import doctor
from vireid.cli import app
from vireid.doctor import Check, Status
from vireid.hosting import listen


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, which the environment names, and room for data."""
    write_model(tmp_path / "zoo" / "standin")
    monkeypatch.setenv("VIREID_MODEL_DIR", str(tmp_path / "zoo"))
    monkeypatch.setenv("VIREID_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("VIREID_PORT", "0")
    monkeypatch.setenv("VIREID_DEVICE", "cpu")
    return tmp_path


def found() -> dict[str, Check]:
    return {check.name: check for check in doctor.examine()}


def test_a_sound_house_has_no_failure_and_is_left_as_it_was(house: Path) -> None:
    before = sorted(house.rglob("*"))
    checks = found()
    assert [check for check in checks.values() if check.status is Status.FAIL] == []
    assert checks["model standin"].found.startswith("fp32 sound; fp32 loaded on CPU")
    assert checks["default model"].found == "standin"
    assert "runs on CPU" in checks["onnxruntime"].found
    assert "obeys filters" in checks["faiss"].found
    assert checks["settings"].found == "VIREID_DATA_DIR, VIREID_DEVICE, VIREID_MODEL_DIR, VIREID_PORT"
    assert sorted(house.rglob("*")) == before


def test_the_probe_graph_gives_back_what_it_gets() -> None:
    session = onnxruntime.InferenceSession(doctor.IDENTITY, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"x": np.array(7, np.float32)})
    assert out == 7


def test_an_altered_model_fails_by_its_hash(house: Path) -> None:
    with (house / "zoo" / "standin" / "model.onnx").open("ab") as file:
        file.write(b"x")
    check = found()["model standin"]
    assert check.status is Status.FAIL
    assert "sha256" in check.found


def test_a_file_of_another_precision_is_checked_as_well(house: Path) -> None:
    card = house / "zoo" / "standin" / "card.json"
    told = json.loads(card.read_text())
    told["precisions"]["int8"] = {"file": "model.int8.onnx", "sha256": "0" * 64}
    card.write_text(json.dumps(told))
    check = found()["model standin"]
    assert (check.status, check.found) == (Status.FAIL, "model.int8.onnx: No such file or directory")
    (card.parent / "model.int8.onnx").write_bytes(b"x")
    assert found()["model standin"].found == "model.int8.onnx (int8) is not the file that the card names"


def test_a_card_that_cannot_be_read_fails_and_the_other_models_are_checked(house: Path) -> None:
    bad = house / "zoo" / "bad"
    bad.mkdir()
    (bad / "card.json").write_text("{}")
    checks = found()
    assert (checks["model bad"].status, checks["model standin"].status) == (Status.FAIL, Status.OK)


def test_a_model_in_a_folder_of_another_name_fails_as_it_does_in_the_server(house: Path) -> None:
    (house / "zoo" / "standin").rename(house / "zoo" / "renamed")
    check = found()["model renamed"]
    assert (check.status, check.found) == (Status.FAIL, "its card calls it standin")


def test_an_empty_model_directory_says_what_to_set(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIREID_MODEL_DIR", str(house / "nothing"))
    check = found()["models"]
    assert (check.status, check.advice) == (Status.FAIL, "set VIREID_MODEL_DIR to a folder of models")


def test_a_default_model_that_is_not_there_fails(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIREID_MODEL", "other")
    assert found()["default model"].status is Status.FAIL


def test_unknown_settings_are_named_with_the_nearest_known(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIREID_DEVISE", "cpu")
    check = found()["settings"]
    assert check.status is Status.FAIL
    assert check.found == "unknown setting VIREID_DEVISE; the nearest known name is VIREID_DEVICE"


def test_a_taken_port_fails_unless_a_vireid_server_has_it(
    house: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listen("127.0.0.1", 0) as taken:
        monkeypatch.setenv("VIREID_PORT", str(taken.getsockname()[1]))
        assert found()["port"].status is Status.FAIL
    monkeypatch.setenv("VIREID_PORT", url.rpartition(":")[2])
    assert found()["port"].found == f"a vireid server answers at {url.removeprefix('http://')}"


def test_a_data_directory_that_is_a_file_fails(house: Path) -> None:
    (house / "data").write_text("")
    assert found()["data directory"].status is Status.FAIL


def test_the_database_is_opened_unless_a_server_has_it(house: Path) -> None:
    store = SqlStore(f"sqlite:///{house / 'data' / 'vireid.db'}")
    try:
        assert "a running server" in found()["database"].found
    finally:
        store.close()
    assert found()["database"].found.startswith("sound; 0 galleries, 0 items")


def test_a_damaged_database_fails(house: Path) -> None:
    (house / "data").mkdir()
    (house / "data" / "vireid.db").write_bytes(b"no database" * 1000)
    check = found()["database"]
    assert (check.status, check.found) == (Status.FAIL, "file is not a database")


def test_the_command_prints_a_table_and_fails_when_a_check_does(house: Path) -> None:
    good = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert good.exit_code == 0, good.output
    (house / "zoo" / "standin" / "card.json").unlink()
    bad = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert bad.exit_code == 1
    assert any(line.startswith("fail  models") and "VIREID_MODEL_DIR" in line for line in bad.stdout.splitlines())
