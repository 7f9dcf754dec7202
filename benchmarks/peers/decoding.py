"""Decoding of the comparable servers: plain Pillow, without checks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from models.card import KEEPS_FLOAT

__all__ = ["Model"]


class Model:
    """An exported ONNX file, run with ``threads`` threads on visible crops."""

    def __init__(self, file: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(KEEPS_FLOAT)
        )
        self._height, self._width = self._session.get_inputs()[0].shape[1:3]

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return an image as the model's input."""
        return np.asarray(image.convert("RGB").resize((self._width, self._height), Image.Resampling.BILINEAR))

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Decode a file to the model's input."""
        return self.pixels(Image.open(io.BytesIO(data)))

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the unit vectors of uint8 crops ``[N, H, W, 3]``."""
        (vectors,) = self._session.run(None, {"image": images, "modality": np.zeros(len(images), np.int64)})
        return vectors
