"""An archive with what cameras, spreadsheets, NAS boxes and archivers of the field write, all at once.

``python -m tests.server.jobs.oddities FILE.zip`` writes it.
"""

from __future__ import annotations

import io
import stat
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from models.card import Modality
from tests.drawing import draw_person
from tests.server.image_files import TEXT, crop, encode

__all__ = ["CROPS", "FAILURES", "IGNORED", "oddity_archive"]

IGNORED = {
    "hidden file or folder": [".DS_Store", "night/._0001.png", "night/.AppleDouble/0001.png"],
    "in a system folder": [
        "night/@eaDir/0001.png/SYNOPHOTO_THUMB_XL.jpg", "#recycle/old.png", "$RECYCLE.BIN/S-1/$R1.png",
        "__MACOSX/night/._0001.png", "System Volume Information/x.png", "lost+found/x.png",
    ],
    "system file": ["Thumbs.db", "night/desktop.ini", "Icon\r"],
    "not an image by its suffix .txt": ["notes.txt"],
    "unknown column of Manifest.CSV": ["notes"],
}  # fmt: skip
"""Members (and a column of the manifest) that are ignored, by reason."""

FAILURES = {
    "text.png": "Not a JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image.",
    "empty.png": "The file is empty.",
    "nested.zip": "Not a JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image.",
    "linked.png": "It is a link, and links are not followed.",
    "../up.png": "Its path leads out of the archive.",
    "C:/absolute.png": "Its path is absolute; paths below the archive are taken.",
    "Manifest.CSV[10]": "There is no file gone.png.",
}
"""Entries that fail, with the reason."""

_MANIFEST = """Path;Identity ;CAMERA;Captured-At;notes
night\\0001.png;0001;3;2026-10-25 12:00:00;x
night/0002.png;0002;3;1763676600;
;;;;
cafe\N{COMBINING ACUTE ACCENT}/1.png;0003;3;1763676600000;
stra\N{LATIN SMALL LETTER SHARP S}e/1.png;0004;3;2026-11-21T08:30:00Z;
NIGHT/0003.png;0005;3;2026-11-21 08:30:00+01:00;
gr\N{LATIN SMALL LETTER O WITH DIAERESIS}\N{LATIN SMALL LETTER SHARP S}e.png;0006;;;
\N{HIRAGANA LETTER A}.png;0007;;;
gone.png;0008;;;
"""

CROPS = {
    "night/0001.png": ("0001", "2026-10-25T11:00:00Z"),  # in Berlin, on the day on which summer time ends
    "night/0002.png": ("0002", "2025-11-20T22:10:00Z"),
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}/1.png": ("0003", "2025-11-20T22:10:00Z"),
    "stra\N{LATIN SMALL LETTER SHARP S}e/1.png": ("0004", "2026-11-21T08:30:00Z"),
    "Night/0003.PNG": ("0005", "2026-11-21T07:30:00Z"),
    "gr\N{LATIN SMALL LETTER O WITH DIAERESIS}\N{LATIN SMALL LETTER SHARP S}e.png": ("0006", None),
    "\N{HIRAGANA LETTER A}.png": ("0007", None),
}
"""Identity and time of the crops that the manifest names, by path."""


class _RawName(zipfile.ZipInfo):
    """A member whose name is written as these bytes, without the flag for UTF-8."""

    raw = b""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - of zipfile
        return self.raw, self.flag_bits & ~0x800


def oddity_archive() -> tuple[bytes, list[str]]:
    """Return the archive, and the paths of all its crops that have no row in the manifest."""
    out, images = io.BytesIO(), _images()
    with zipfile.ZipFile(out, "w") as archive:
        archive.mkdir("night")
        archive.writestr("Manifest.CSV", _MANIFEST.encode("utf-16"))
        for number, member in enumerate(_named_members()):
            archive.writestr(member, crop(number))
        for number, name in enumerate(name for reason in list(IGNORED)[:-1] for name in IGNORED[reason]):
            archive.writestr(name, crop(500 + number))
        for name, content in (("text.png", TEXT), ("empty.png", b""), ("nested.zip", b"PK\5\6" + bytes(18))):
            archive.writestr(name, content)
        link = zipfile.ZipInfo("linked.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "night/0001.png")
        for name in ("../up.png", "C:/absolute.png"):
            archive.writestr(name, crop(600))
        for name, content in images.items():
            archive.writestr(name, content)
    return out.getvalue(), list(images)


def _named_members() -> list[zipfile.ZipInfo]:
    """Return the members of ``CROPS``, in its order, with names as different programs write them."""
    backslash = zipfile.ZipInfo("night/0002.png")
    backslash.filename = backslash.orig_filename = "night\\0002.png"
    shift_jis = _raw_name("\N{HIRAGANA LETTER A}.png".encode("shift-jis"))
    text = "\N{HIRAGANA LETTER A}.png".encode()
    field = struct.pack("<BL", 1, zlib.crc32(shift_jis.raw)) + text
    shift_jis.extra = struct.pack("<HH", 0x7075, len(field)) + field
    return [
        zipfile.ZipInfo("night/0001.png"),
        backslash,
        zipfile.ZipInfo("cafe\N{COMBINING ACUTE ACCENT}/1.png"),
        _raw_name("stra\N{LATIN SMALL LETTER SHARP S}e/1.png".encode()),
        zipfile.ZipInfo("Night/0003.PNG"),
        _raw_name("gr\N{LATIN SMALL LETTER O WITH DIAERESIS}\N{LATIN SMALL LETTER SHARP S}e.png".encode("cp437")),
        shift_jis,
    ]


def _raw_name(raw: bytes) -> _RawName:
    member = _RawName(repr(raw))
    member.raw = raw
    return member


def _images() -> dict[str, bytes]:
    """Return crops in unusual formats and under unusual names."""
    people = [Image.fromarray(draw_person(100 + n, Modality.VISIBLE, size=(128, 64))) for n in range(20)]
    deep = (7600 + 4 * np.asarray(people[0].convert("L"), np.uint16)).astype(np.uint16)
    sideways = Image.Exif()
    sideways[0x0112] = 6
    turned = people[1].transpose(Image.Transpose.ROTATE_90)
    jpeg = encode(people[2], "JPEG")
    return {
        "deep.png": encode(Image.fromarray(deep)),
        "deep.tif": encode(Image.fromarray(deep), "TIFF"),
        "cmyk.jpg": encode(people[3].convert("CMYK"), "JPEG"),
        "palette.gif": encode(people[4].convert("P"), "GIF"),
        "animated.gif": encode(people[5].convert("P"), "GIF", save_all=True, append_images=[people[6].convert("P")]),
        "one-bit.png": encode(people[7].convert("1")),
        "alpha.webp": encode(people[8].convert("RGBA"), "WEBP"),
        "image.avif": encode(people[9], "AVIF"),
        "stereo.jpg": encode(people[10], "MPO", save_all=True, append_images=[people[11]]),
        "old.JFIF": encode(people[12], "JPEG"),
        "sideways.jpg": encode(turned, "JPEG", exif=sideways),
        "sideways.webp": encode(turned, "WEBP", exif=sideways),
        "exif.jpg": encode(people[13], "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "profile.jpg": encode(people[14], "JPEG", icc_profile=b"x" * 40_000),
        "no-end-marker.jpg": jpeg[:-2],
        "without suffix": encode(people[15]),
        "jpeg.png": encode(people[16], "JPEG"),
        "CON.png": crop(700),
        "dot..png": crop(701),
        " space .png": crop(702),
        "deep/" * 30 + "x.png": crop(703),
        "long" * 40 + ".png": crop(704),
        "100%.png": crop(705),
        "same\N{LATIN SMALL LETTER E WITH ACUTE}.png": crop(706),
        "samee\N{COMBINING ACUTE ACCENT}.png": crop(707),
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(oddity_archive()[0])
