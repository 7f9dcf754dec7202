"""``vireid demo`` against a real server."""

from __future__ import annotations

import io
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.card import Modality
from server.runner import bind
from tests.vireid.intercepting_transport import InterceptingTransport
from vireid.cli import app, demo_search
from vireid.client import ApiError, Client


def test_drawn_crops_are_reproducible_and_all_different() -> None:
    first, second = (list(demo_search.draw_crops(3, Modality.INFRARED)) for _ in range(2))
    assert first == second
    assert len({crop.content for crop in first}) == len(first) == 9
    assert {crop.camera for crop in first}.isdisjoint(
        crop.camera for crop in demo_search.draw_crops(3, Modality.VISIBLE)
    )


def test_rank_1_counts_all_queries_and_the_gallery_is_deleted(client: Client) -> None:
    result = demo_search.run(client, 5)
    right = 0
    for query, answer in result.answers:
        assert answer.searched == 15
        assert answer.calibration is None
        assert {hit.false_match_rate for hit in answer.hits} == {None}
        best = max(answer.hits, key=lambda hit: hit.score)
        right += best.item.identity == query.person
    assert result.right == right
    assert f"{right} of 10 queries" in result.summary
    assert "(chance: 20%" in result.summary
    assert right > 2
    assert result.gallery not in [gallery.name for gallery in client.galleries()]


def test_a_failing_demo_leaves_no_gallery(client: Client) -> None:
    def broken(request: httpx2.Request, _: int) -> httpx2.Response | None:
        return httpx2.Response(500) if request.url.path.endswith("/search") else None

    before = {gallery.name for gallery in client.galleries()}
    with Client(client.base_url, transport=InterceptingTransport(broken)) as failing, pytest.raises(ApiError):
        demo_search.run(failing, 2, keep=True)
    assert {gallery.name for gallery in client.galleries()} == before


def test_the_image_has_a_row_for_each_query(client: Client) -> None:
    small, large = (demo_search.draw(demo_search.run(client, people)) for people in (2, 4))
    assert large.height > small.height
    assert large.width == small.width
    colours = {colour for _, colour in large.getcolors(maxcolors=1 << 24) or []}
    assert (34, 139, 60) in colours


def test_the_command_starts_a_server_where_none_answers_and_writes_crops(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    env = {"VIREID_MODEL_DIR": str(model_dir), "COLUMNS": "120", "VIREIDCLI_URL": f"http://127.0.0.1:{port}"}
    done = CliRunner().invoke(app, ["demo", "--people", "3"], env=env)
    assert done.exit_code == 0, done.output
    assert "Rank-1: " in done.stdout
    assert "These people are drawings" in done.stdout
    with Image.open(tmp_path / "vireid-demo.png") as image:
        assert image.format == "PNG"
    assert {path.name for path in tmp_path.iterdir()} == {"vireid-demo.png", "vireid-demo"}
    assert (tmp_path / "vireid-demo" / "day" / "0001_c1_0.png").is_file()
    assert len(list((tmp_path / "vireid-demo" / "night").iterdir())) == 9


def test_no_server_is_started_for_the_address_of_another_machine(tmp_path: Path) -> None:
    words = ["demo", "--url", "http://absent.invalid:8000", "--folder", str(tmp_path / "x")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "no server answers at http://absent.invalid:8000" in done.stderr


def test_the_command_uses_a_running_server_and_keeps_the_gallery_with_keep(
    url: str, client: Client, tmp_path: Path
) -> None:
    words = ["demo", "--people", "2", "--url", url, "--keep", "--out", str(tmp_path / "x.png")]
    words += ["--folder", str(tmp_path / "crops")]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    name = done.stdout.rpartition("gallery ")[2].strip(" .\n")
    assert client.gallery(name).items == 6


def test_the_written_crops_are_queries_and_items(client: Client, tmp_path: Path) -> None:
    result = demo_search.run(client, 2)
    demo_search.write_folders(result, tmp_path)
    day, night = ({path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("day", "night"))
    assert day == {query.content for query, _ in result.answers}
    assert night == {crop.content for crop in result.indexed.values()}
    assert Image.open(io.BytesIO(next(iter(day)))).size == (64, 128)
