"""Start weights: every backbone has its files, and another file is not taken for one of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from typer.testing import CliRunner

from models.osnet import OSNETS
from models.start_weights import START_WEIGHTS, StartWeights
from vireid.cli import app


def test_every_osnet_has_start_weights() -> None:
    assert {entry.backbone for entry in START_WEIGHTS} == set(OSNETS)


def test_missing_and_different_files_are_reported(tmp_path: Path) -> None:
    checksums = {suffix: hashlib.sha256(suffix.encode()).hexdigest() for suffix in (".xml", ".bin")}
    entry = StartWeights("drawn", "osnet_x0_5", checksums, "")
    assert entry.state(tmp_path) == "drawn.xml is missing"
    for suffix in checksums:
        (tmp_path / f"drawn{suffix}").write_text(suffix)
    assert entry.state(tmp_path) == "complete"
    (tmp_path / "drawn.bin").write_text("another")
    assert "drawn.bin is a different file" in entry.state(tmp_path)


def test_the_command_names_publisher_licence_and_checksums_and_refuses_other_files(tmp_path: Path) -> None:
    output = CliRunner().invoke(app, ["weights", str(tmp_path)])
    assert output.exit_code == 0
    for word in ("Open Model Zoo", "Apache-2.0", START_WEIGHTS[0].name, START_WEIGHTS[0].sha256[".bin"]):
        assert word in output.output
    (tmp_path / f"{START_WEIGHTS[0].name}.xml").write_text("another")
    assert CliRunner().invoke(app, ["weights", str(tmp_path)]).exit_code == 1
