"""Pretrained person re-identification networks: their files, publisher and licence.

The files are not part of the project. This module does not import torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["START_WEIGHTS", "StartWeights"]


@dataclass(frozen=True, slots=True)
class StartWeights:
    """A network of the Open Model Zoo, as OpenVINO IR."""

    name: str
    """Name in the Open Model Zoo; its files are NAME.xml and NAME.bin."""
    backbone: str
    """Name of the backbone in a training configuration."""
    sha256: dict[str, str]
    """Checksum of each file, by suffix."""
    remark: str

    publisher = "Open Model Zoo (Intel)"
    licence = "Apache-2.0"
    training_data = "not documented by the publisher"

    def files(self, folder: Path) -> dict[Path, str]:
        """Return the checksum of each file by its path in ``folder``."""
        return {folder / f"{self.name}{suffix}": checksum for suffix, checksum in self.sha256.items()}

    def state(self, folder: Path) -> str:
        """Return ``complete`` or what is wrong: a file is missing or has another checksum."""
        for file, checksum in self.files(folder).items():
            if not file.is_file():
                return f"{file.name} is missing"
            if hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
                return f"{file.name} is a different file (sha256 differs)"
        return "complete"


START_WEIGHTS = (
    StartWeights(
        "person-reidentification-retail-0286",
        "osnet_x0_75",
        {
            ".xml": "cc547e622d8aeabf97938213f68171bf59ac7d01c910ceadfea984aa96e5d1b5",
            ".bin": "d06beb9e2b2661d42b233f64ef623f3518fc46dc11f6b7dd53cda8962d9d1bd9",
        },
        "initial weights of the light recipes",
    ),
    StartWeights(
        "person-reidentification-retail-0277",
        "osnet_x1_0",
        {
            ".xml": "82039b1bb986231c50345550e59def94e63579998e9cddbd1a312f293eb87729",
            ".bin": "6bb69e09d07733cc3896b29081d2627f92db7b9aacd50f1a8c3df491cb10f1b7",
        },
        "the strongest and slowest",
    ),
    StartWeights(
        "person-reidentification-retail-0287",
        "osnet_x0_5",
        {
            ".xml": "09af746c1068a3e89355e1f0226d3d6982dc1cd77634b1f70a40f1f654a94be1",
            ".bin": "7f53d18d11253455e0e11646b2176cf6509cc7c97cb5376f9b91b4c41e09a06c",
        },
        "the smallest and fastest",
    ),
)
"""The networks whose weights :mod:`models.osnet` can load."""
