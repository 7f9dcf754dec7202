"""A search with drawn people over HTTP: infrared crops in the gallery, visible ones as queries."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.text import Text

from models.card import Modality
from vireid.client import Client, Filter, ItemFields, SearchAnswer, SearchHit
from vireid.drawing import draw_person

__all__ = ["CAUTION", "Crop", "Result", "draw", "draw_crops", "run", "table", "write_folders"]

CAUTION = (
    "These people are drawings whose infrared brightness follows the colours of their clothes, which that of real "
    "people hardly does. The result shows that embedding and search work together, not how well the model knows real "
    "people. Scores of drawings have no false match rate."
)

_CAMERAS = {Modality.VISIBLE: ("c1", "c2"), Modality.INFRARED: ("c3", "c4", "c5")}
_DUSK = datetime(2026, 1, 15, 17, tzinfo=UTC)
_CAPTURE_SPAN_S = 6 * 3600
_HITS = 5
_ROWS = 8  # queries in table and image

_RIGHT, _WRONG, _INK, _PAPER = (34, 139, 60), (200, 40, 40), (30, 30, 30), (250, 250, 250)
_CELL, _BORDER, _GAP, _CAPTION, _HEADER = (96, 192), 4, 14, 40, 70  # pixels; a cell is width, height


@dataclass(frozen=True, slots=True)
class Crop:
    """A drawn person, as one camera would see it; ``content`` is a PNG file."""

    id: str
    person: str
    modality: Modality
    camera: str
    captured_at: datetime
    content: bytes

    @property
    def fields(self) -> ItemFields:
        """Fields of the item."""
        return ItemFields(
            id=self.id,
            identity=self.person,
            modality=self.modality,
            camera=self.camera,
            captured_at=self.captured_at,
            attributes={"source": "drawn"},
        )


@dataclass(frozen=True, slots=True)
class Result:
    """Every query with the server's answer, from a gallery of ``indexed`` crops (by id) of ``people`` people."""

    gallery: str
    people: int
    indexed: dict[str, Crop]
    answers: Sequence[tuple[Crop, SearchAnswer]]

    @property
    def right(self) -> int:
        """Number of queries whose first hit is the right person."""
        return sum(bool(answer.hits) and _right(query, answer.hits[0]) for query, answer in self.answers)

    @property
    def summary(self) -> str:
        """Rank-1 beside chance, in one line."""
        queries = len(self.answers)
        return (
            f"Rank-1: {self.right} of {queries} queries = {self.right / queries:.0%} (chance: {1 / self.people:.0%}; "
            f"visible queries, {len(self.indexed)} infrared crops of {self.people} drawn people, "
            f"model {self.answers[0][1].model})"
        )


def draw_crops(people: int, modality: Modality) -> Iterator[Crop]:
    """Draw one crop of each person from each camera of that modality."""
    for person in range(people):
        for number, camera in enumerate(_CAMERAS[modality]):
            seconds = np.random.default_rng((person, number, modality.index)).integers(_CAPTURE_SPAN_S)
            name = f"p{person:03d}"
            yield Crop(
                id=f"{name}:{camera}",
                person=name,
                modality=modality,
                camera=camera,
                captured_at=_DUSK + timedelta(seconds=int(seconds)),
                content=_png(draw_person(person, modality, seed=number)),
            )


def run(client: Client, people: int, *, keep: bool = False) -> Result:
    """Index every infrared crop, search with every visible one, and delete the gallery unless ``keep``."""
    indexed = {crop.id: crop for crop in draw_crops(people, Modality.INFRARED)}
    with _gallery(client, keep) as name:
        client.add_items(name, ((crop.content, crop.fields) for crop in indexed.values()))
        opposite = Filter(modality="opposite")
        answers = [
            (crop, client.search(name, [crop.content], modality=crop.modality, k=_HITS, filter=opposite))
            for crop in draw_crops(people, Modality.VISIBLE)
        ]
    return Result(name, people, indexed, answers)


def table(result: Result) -> tuple[list[str], list[list[str | Text]]]:
    """Return columns and rows of a table: the first queries and their hits, right and wrong marked."""
    shown = _shown(result)
    columns = [f"first {len(shown)} of {len(result.answers)} queries", *(f"hit {n}" for n in range(1, _HITS + 1))]
    rows: list[list[str | Text]] = []
    for query, answer in shown:
        row: list[str | Text] = [f"{query.person} {query.camera} {query.captured_at:%H:%M}"]
        for hit in answer.hits:
            mark, colour = ("✓", "green") if _right(query, hit) else ("✗", "red")
            row.append(Text(f"{mark} {hit.score:.2f} {hit.item.identity}", colour))
        rows.append(row)
    return columns, rows


def draw(result: Result) -> Image.Image:
    """Draw the same as an image: a row for each query, right hits framed green, wrong ones red."""
    rows = _shown(result)
    width, height = _CELL[0] + _GAP, _CELL[1] + _CAPTION + _GAP
    page = Image.new("RGB", (_GAP + width * (_HITS + 1) + _GAP, _HEADER + height * len(rows)), _PAPER)
    title, small = ImageFont.load_default(20), ImageFont.load_default(12)
    pen = ImageDraw.Draw(page)
    pen.text((_GAP, 12), f"Who is this? Rank-1 {result.right} of {len(result.answers)}", _INK, title)
    pen.text(
        (_GAP, 42), f"visible query, infrared hits; chance {1 / result.people:.0%}; drawings, not people", _INK, small
    )

    def cell(row: int, column: int, crop: Crop, caption: str, border: tuple[int, int, int]) -> None:
        x, y = _GAP + column * width + (_GAP if column else 0), _HEADER + row * height
        frame = (x - _BORDER, y - _BORDER, x + _CELL[0] + _BORDER - 1, y + _CELL[1] + _BORDER - 1)
        pen.rectangle(frame, fill=border)
        page.paste(Image.open(io.BytesIO(crop.content)).resize(_CELL, Image.Resampling.LANCZOS), (x, y))
        pen.multiline_text((x, y + _CELL[1] + _BORDER + 2), caption, _INK, small)

    for row, (query, answer) in enumerate(rows):
        cell(row, 0, query, f"{query.person}\n{_caption(query)}", _PAPER)
        for column, hit in enumerate(answer.hits, 1):
            crop = result.indexed[hit.item.id]
            word, border = ("right", _RIGHT) if _right(query, hit) else ("wrong", _WRONG)
            cell(row, column, crop, f"{hit.score:.2f} {crop.person} {word}\n{_caption(crop)}", border)
    return page


def write_folders(result: Result, folder: Path) -> None:
    """Write visible crops into ``folder/day`` and infrared ones into ``folder/night``, as ``PERSON_CAMERA_0.png``."""
    crops = {"day": [query for query, _ in result.answers], "night": list(result.indexed.values())}
    for name, shown in crops.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for crop in shown:
            number = int(crop.person.removeprefix("p")) + 1
            (folder / name / f"{number:04d}_{crop.camera}_0.png").write_bytes(crop.content)


@contextmanager
def _gallery(client: Client, keep: bool) -> Iterator[str]:
    name = client.create_gallery(f"demo-{secrets.token_hex(3)}", description="drawn people, vireid demo").name
    done = False
    try:
        yield name
        done = True
    finally:
        if not (keep and done):
            client.delete_gallery(name)


def _shown(result: Result) -> Sequence[tuple[Crop, SearchAnswer]]:
    return result.answers[:: len(_CAMERAS[Modality.VISIBLE])][:_ROWS]  # one of each person


def _right(query: Crop, hit: SearchHit) -> bool:
    return hit.item.identity == query.person


def _caption(crop: Crop) -> str:
    return f"{crop.camera} {crop.captured_at:%H:%M}"


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
