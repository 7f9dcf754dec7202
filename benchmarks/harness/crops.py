"""Drawn crops as JPEG files, and request bodies that contain them."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from dataclasses import dataclass, field

from PIL import Image

from models.card import Modality
from vireid.drawing import draw_person

__all__ = ["Body", "draw_crops", "form", "json_body", "tar"]

_BOUNDARY = "vireid-benchmark"


@dataclass(frozen=True, slots=True)
class Body:
    """A request body with its headers."""

    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


def draw_crops(count: int, size: tuple[int, int] = (256, 128)) -> list[bytes]:
    """Return JPEG files of drawn people; ``size`` is (height, width)."""
    crops = []
    for number in range(count):
        out = io.BytesIO()
        crop = draw_person(number // 4, Modality.VISIBLE, seed=number, size=size)
        Image.fromarray(crop).save(out, "JPEG", quality=90)
        crops.append(out.getvalue())
    return crops


def form(crops: list[bytes], name: str = "images", **fields: str) -> Body:
    """Return a multipart form with files, all of the same field name, and text fields."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    for number, crop in enumerate(crops):
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{number}.jpg"\r\n'
        parts.append(f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + crop + b"\r\n")
    parts.append(f"--{_BOUNDARY}--\r\n".encode())
    return Body(b"".join(parts), {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"})


def json_body(crop: bytes) -> Body:
    """Return ``{"image": base64}``."""
    return Body(json.dumps({"image": base64.b64encode(crop).decode()}).encode(), {"Content-Type": "application/json"})


def tar(crops: list[bytes]) -> bytes:
    """Return a tar archive of the files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number, crop in enumerate(crops):
            member = tarfile.TarInfo(f"{number // 4:05}_c{number % 4}_{number}.jpg")
            member.size = len(crop)
            archive.addfile(member, io.BytesIO(crop))
    return out.getvalue()
