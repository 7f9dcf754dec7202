from __future__ import annotations

from pathlib import Path

import pytest

from tests.drawing import write_people
from training.data.folder import read_folder
from training.data.records import Record


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn identities, five images of each modality."""
    return write_people(tmp_path_factory.mktemp("people"), range(1, 7), images=5, size=(64, 32))


@pytest.fixture(scope="session")
def people_records(people: Path) -> list[Record]:
    return read_folder(people)
