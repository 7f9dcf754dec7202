"""The demo, end to end and small."""

from __future__ import annotations

import io
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.card import Modality
from tests.vireid.between import Between
from vireid import demo
from vireid.cli import app
from vireid.client import ApiError, Client


def test_the_cast_is_the_same_every_time_and_no_picture_twice() -> None:
    first, second = (list(demo.cast(3, Modality.INFRARED)) for _ in range(2))
    assert first == second
    assert len({crop.content for crop in first}) == len(first) == 9
    assert {crop.camera for crop in first}.isdisjoint(crop.camera for crop in demo.cast(3, Modality.VISIBLE))


def test_rank_1_is_counted_over_all_queries_and_the_gallery_is_taken_away(client: Client) -> None:
    result = demo.enact(client, 5)
    right = 0
    for query, answer in result.answers:
        assert answer.searched == 15
        best = max(answer.hits, key=lambda hit: hit.score)
        right += best.item.identity == query.person
    assert result.found == right
    assert f"{right} of 10 queries" in result.verdict
    assert "(chance: 20%" in result.verdict
    assert right > 2
    assert result.gallery not in [gallery.name for gallery in client.galleries()]


def test_a_demo_that_fails_leaves_no_gallery(client: Client) -> None:
    def broken(request: httpx2.Request, _: int) -> httpx2.Response | None:
        return httpx2.Response(500) if request.url.path.endswith("/search") else None

    before = {gallery.name for gallery in client.galleries()}
    with Client(client.base_url, transport=Between(broken)) as failing, pytest.raises(ApiError):
        demo.enact(failing, 2, keep=True)
    assert {gallery.name for gallery in client.galleries()} == before


def test_the_picture_shows_a_row_for_each_query(client: Client) -> None:
    small, large = (demo.draw(demo.enact(client, people)) for people in (2, 4))
    assert large.height > small.height
    assert large.width == small.width
    colours = {colour for _, colour in large.getcolors(maxcolors=1 << 24) or []}
    assert (34, 139, 60) in colours


def test_the_command_starts_a_server_of_its_own_and_leaves_nothing_but_the_picture(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        app, ["demo", "--people", "3"], env={"VIREID_MODEL_DIR": str(model_dir), "COLUMNS": "120"}
    )
    assert done.exit_code == 0, done.output
    assert "Rank-1: " in done.stdout
    with Image.open(tmp_path / "vireid-demo.png") as picture:
        assert picture.format == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["vireid-demo.png"]


def test_the_command_uses_a_running_server_and_keeps_the_gallery_if_asked(
    url: str, client: Client, tmp_path: Path
) -> None:
    words = ["demo", "--people", "2", "--url", url, "--keep", "--out", str(tmp_path / "x.png")]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    name = done.stdout.rpartition("gallery ")[2].strip(" .\n")
    assert client.gallery(name).items == 6


def test_the_crops_to_drop_on_the_page_are_the_queries(client: Client, tmp_path: Path) -> None:
    result = demo.enact(client, 2)
    folder = demo.write_queries(result, tmp_path / "crops")
    assert {path.read_bytes() for path in folder.iterdir()} == {query.content for query, _ in result.answers}
    assert Image.open(io.BytesIO(next(folder.iterdir()).read_bytes())).size == (64, 128)
