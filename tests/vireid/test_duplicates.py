"""Near duplicates and crop warnings, by client and command."""

from __future__ import annotations

import numpy as np
from typer.testing import CliRunner

from models.card import Modality
from tests.drawing import draw_person
from tests.server.image_files import crop, encode
from vireid.cli import app
from vireid.client import Client, CropWarning, Filter, ItemFields


def fill(client: Client, gallery: str) -> None:
    """Add five crops: ``a`` and ``b`` are the same file, ``d`` and ``e`` the same infrared file."""
    infrared = crop(2, Modality.INFRARED)
    crops = {"a": crop(1), "b": crop(1), "c": crop(3), "d": infrared, "e": infrared}
    items = [
        (file, ItemFields(id=name, identity=f"[bold]{name}", modality="auto", camera="c1"))
        for name, file in crops.items()
    ]
    client.add_items(gallery, items)


def test_duplicates_yields_each_pair_once_and_marks_identical_files(client: Client, gallery: str) -> None:
    fill(client, gallery)
    pairs = list(client.duplicates(gallery, min_score=0.9999))
    assert [(pair.a.id, pair.b.id, pair.identical) for pair in pairs] == [("a", "b", True), ("d", "e", True)]
    assert [pair.a.id for pair in client.duplicates(gallery, Filter(modality="infrared"), min_score=0.9999)] == ["d"]
    assert len(list(client.duplicates(gallery, min_score=-1))) == 10


def test_the_command_lists_pairs_up_to_the_limit(url: str, client: Client, gallery: str) -> None:
    fill(client, gallery)

    def shown(*options: str) -> str:
        words = ["gallery", "duplicates", gallery, "--min-score", "0.9999", *options]
        done = CliRunner().invoke(app, words, env={"VIREIDCLI_URL": url, "COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.stdout

    lines = shown().splitlines()
    assert [line.split()[1:4] for line in lines if line.startswith("1.0")] == [
        ["yes", "a", "[bold]a"],
        ["yes", "d", "[bold]d"],
    ]
    assert "first 1;" not in shown()
    assert "These are the first 1; --limit shows more." in shown("--limit", "1")


def test_warnings_of_a_dark_crop_appear_in_write_item_and_search(client: Client, gallery: str) -> None:
    dark = encode((draw_person(1, Modality.VISIBLE) * 0.1).astype(np.uint8))
    (written,) = client.add_items(gallery, [(dark, ItemFields(id="dark", modality="visible"))])
    expected = (CropWarning.TOO_DARK,)
    assert written.warnings == client.item(gallery, "dark").warnings == expected
    answer = client.search(gallery, [dark], modality="visible")
    assert (answer.warnings, answer.hits[0].item.warnings) == ((expected,), expected)
