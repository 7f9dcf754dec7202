"""Cosine between the embeddings of a thumbnail and of its crop; re-embedding a gallery uses the thumbnails.

    python -m benchmarks.thumbnails FOLDER --modality visible|infrared [--crops 60] [--model models/zoo]

Prints mean and least cosine, and the mean size of a thumbnail in bytes.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

from models.card import Modality, Precision
from server.embedding.decode import decode_image, thumbnail
from server.embedding.registry import load_embedders
from server.embedding.resize import resize

SUFFIXES = {".jpg", ".png"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modality", type=Modality, required=True)
    parser.add_argument("--crops", type=int, default=60)
    parser.add_argument("--model", type=Path, default=Path("models/zoo"))
    arguments = parser.parse_args()
    embedder = next(iter(load_embedders(arguments.model, precision=Precision.FP32, device="cpu", threads=1).values()))
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix in SUFFIXES)
    cosines, sizes = [], []
    for path in random.Random(0).sample(paths, min(arguments.crops, len(paths))):
        crop = decode_image(path.read_bytes(), max_pixels=10**8)
        small = thumbnail(crop)
        pair = [resize(image, embedder.card.input) for image in (crop, decode_image(small, max_pixels=10**8))]
        first, second = embedder.embed(np.stack(pair), np.full(2, arguments.modality.index, np.int64))
        cosines.append(float(first @ second))
        sizes.append(len(small))
    found = f"cosine mean {np.mean(cosines):.3f}, least {min(cosines):.3f}; {np.mean(sizes):.0f} bytes"
    print(f"{len(cosines)} crops: {found}")


if __name__ == "__main__":
    main()
