"""Embed crops of two drawn people and compare them across modalities.

python examples/compare.py http://127.0.0.1:8000
"""

from __future__ import annotations

import io
import sys

from PIL import Image

from models.card import Modality
from vireid.client import Client
from vireid.drawing import draw_person


def crop(person: int, modality: Modality) -> bytes:
    """Return a drawn person as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(draw_person(person, modality)).save(file, "PNG")
    return file.getvalue()


def main(address: str) -> None:
    """Run the example against a server."""
    with Client(address) as client:
        query = client.embed([crop(1, Modality.VISIBLE)], Modality.VISIBLE)[0]
        for person in (1, 2):
            stored = client.embed([crop(person, Modality.INFRARED)], Modality.INFRARED)[0]
            print(f"person 1, visible, and person {person}, infrared: cosine {float(query @ stored):.3f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
