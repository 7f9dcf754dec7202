"""Client and commands that save, restore and re-embed a gallery."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.card import Modality
from server.runner import in_background
from server.settings import Settings
from tests.server.image_files import crop
from tests.server.stub_model import write_model
from tests.vireid.test_commands import vireid
from vireid.client import Client, ItemFields, JobState


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with two models, ``old`` its default."""
    models = tmp_path_factory.mktemp("zoo")
    write_model(models / "old")
    write_model(models / "new", seed=1)
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"), model_dir=models, model="old", device="cpu", threads=1,
        host="127.0.0.1", port=0, auth="off",
    )  # fmt: skip
    with in_background(settings) as address:
        yield address


@pytest.fixture
def gallery(client: Client) -> str:
    """Name of a gallery of three people."""
    name = client.create_gallery(f"g-{uuid.uuid4().hex}").name
    client.add_items(name, [(crop(n), ItemFields(id=f"p{n}", modality="visible")) for n in range(3)])
    return name


def test_a_snapshot_restores_every_item(client: Client, gallery: str, tmp_path: Path) -> None:
    file = tmp_path / "saved.tar"
    file.write_bytes(b"".join(client.snapshot(gallery)))
    *_, job = client.watch(client.restore(f"{gallery}-2", file).id)
    assert (job.kind, job.state, job.done) == ("restore", JobState.SUCCEEDED, 3)
    assert list(client.items(f"{gallery}-2")) == list(client.items(gallery))


def test_the_commands_snapshot_and_restore(url: str, gallery: str, tmp_path: Path) -> None:
    file = tmp_path / "saved.tar"
    saved = vireid("gallery", "snapshot", gallery, str(file), url=url)
    assert (saved.exit_code, saved.stdout.strip()) == (0, f"{file} holds {gallery}")
    assert file.stat().st_mode & 0o777 == 0o600
    again = vireid("gallery", "snapshot", gallery, str(file), url=url)
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
    none = vireid("gallery", "snapshot", "nowhere", str(tmp_path / "none.tar"), url=url)
    assert (none.exit_code, [path.name for path in tmp_path.iterdir()]) == (1, ["saved.tar"])
    restored = vireid("gallery", "restore", f"{gallery}-2", str(file), url=url)
    assert restored.stdout.strip() == f"{gallery}-2: succeeded, 3 done, 0 there already, 0 failed"
    file.write_bytes(file.read_bytes()[:-2048])
    broken = vireid("gallery", "restore", f"{gallery}-3", str(file), url=url)
    assert (broken.exit_code, "cut off" in broken.stderr) == (1, True)
    assert vireid("gallery", "restore", f"{gallery}-3", str(tmp_path / "none.tar"), url=url).exit_code == 1


def test_the_command_reembeds_a_gallery_with_another_model(url: str, client: Client, gallery: str) -> None:
    done = vireid("gallery", "reembed", gallery, "--model", "new", url=url)
    assert (done.exit_code, done.stdout.strip()) == (0, f"{gallery}: succeeded, 3 done, 0 there already, 0 failed")
    assert client.gallery(gallery).model == "new"
    assert client.search(gallery, [crop(2)], modality=Modality.VISIBLE).hits[0].item.id == "p2"
