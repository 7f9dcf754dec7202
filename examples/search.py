"""Add drawn infrared crops to a gallery and search it with a visible crop.

python examples/search.py http://127.0.0.1:8000
"""

from __future__ import annotations

import io
import sys

from PIL import Image

from models.card import Modality
from vireid.client import Client, ItemFields
from vireid.drawing import draw_person

PEOPLE = range(1, 7)


def crop(person: int, modality: Modality) -> bytes:
    """Return a drawn person as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(draw_person(person, modality)).save(file, "PNG")
    return file.getvalue()


def item(person: int) -> ItemFields:
    """Return the fields of the stored item of a person."""
    return ItemFields(id=f"person-{person}", modality=Modality.INFRARED, identity=str(person))


def main(address: str) -> None:
    """Run the example against a server."""
    with Client(address) as client:
        client.create_gallery("example-search")
        client.add_items("example-search", [(crop(p, Modality.INFRARED), item(p)) for p in PEOPLE])
        answer = client.search("example-search", [crop(3, Modality.VISIBLE)], k=3)
        for hit in answer.hits:
            print(hit.rank, hit.item.id, round(hit.score, 3), hit.false_match_rate)
        client.delete_gallery("example-search")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
