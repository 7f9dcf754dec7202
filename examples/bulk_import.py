"""Import a folder of drawn crops as one job, follow the job, and erase one person.

python examples/bulk_import.py http://127.0.0.1:8000
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from models.card import Modality
from vireid.client import Client
from vireid.drawing import draw_person

GALLERY = "example-import"


def main(address: str) -> None:
    """Run the example against a server."""
    with tempfile.TemporaryDirectory() as folder:
        for person in range(1, 9):
            file = Path(folder) / f"{person:04d}_c3.png"
            Image.fromarray(draw_person(person, Modality.INFRARED)).save(file)
        pattern = r"(?P<identity>\d+)_c(?P<camera>\d)"
        words = ["vireid", "import", folder, "--gallery", GALLERY, "--modality", "infrared", "--pattern", pattern]
        subprocess.run([*words, "--url", address], check=True)
    erase = ["vireid", "gallery", "erase", GALLERY, "--identity", "0003", "--yes", "--url", address]
    subprocess.run(erase, check=True)
    with Client(address) as client:
        print(sorted(item.identity or "" for item in client.items(GALLERY)))
        client.delete_gallery(GALLERY)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
