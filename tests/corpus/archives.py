"""Malformed and expensive archives and vector files, drawn from a seed."""

from __future__ import annotations

import gzip
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import pyarrow as arrow

from tests.corpus.images import hostile_images
from tests.corpus.mutation import damaged
from tests.server.jobs.uploads import header, ndjson, parquet, tar, unit_vectors, vector_rows, zipped

__all__ = ["hostile_archives"]

Upload = tuple[str, bytes]
"""Media type and content."""
Maker = Callable[[Random], Upload]

TAR, GZIP, ZIP = "application/x-tar", "application/gzip", "application/zip"
NDJSON, PARQUET = "application/x-ndjson", "application/vnd.apache.parquet"

_NAMES = (
    "/etc/passwd", "C:/x.png", "../up.png", "a/../../b.png", "line\nbreak.png", "esc\x1b[31m.png", "x" * 1_500,
    "././", "a\\..\\b.png", "..", "con.png", "é\u202egpj.png", "a//b.png",
)  # fmt: skip
_TAR_KINDS = b"012345679gxLKSDMNVX"
_BOMB = bytes(4_000_000)


def hostile_archives(count: int, seed: int) -> Iterator[Upload]:
    """Yield ``count`` uploads of an import, each at most about a megabyte; half of them are damaged at random."""
    draw = Random(seed)
    for number in range(count):
        kind, data = draw.choice(_MAKERS)(draw)
        yield kind, damaged(draw, data) if number % 2 else data


def _files(draw: Random) -> dict[str, bytes]:
    """Return a few images, some of them hostile, under names of which some are hostile."""
    images = hostile_images(draw.randint(1, 4), draw.randrange(2**32))
    return {draw.choice((f"{n}.png", f"a/b/{n}.jpg", draw.choice(_NAMES))): image for n, image in enumerate(images)}


def _tar(draw: Random) -> Upload:
    extra = [
        header(draw.choice(_NAMES), bytes([draw.choice(_TAR_KINDS)]), link=draw.choice(("/etc/passwd", "..", "0.png")))
        for _ in range(draw.randint(0, 3))
    ]
    return TAR, tar(_files(draw), *extra, kind=draw.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))


def _pax(draw: Random) -> Upload:
    """Tar archive with global headers, long ones, or of values that are no numbers."""
    pairs = (
        b"path=a/../../x.png",
        b"size=-1",
        b"size=99999999999",
        b"mtime=nan",
        b"GNU.sparse.major=1",
        b"hdrcharset=x",
    )
    records = b"".join(b"%d %s\n" % (len(pair) + 4, pair) for pair in draw.choices(pairs, k=draw.randint(1, 5)))
    records *= draw.choice((1, 1_000))
    member = header("x", draw.choice((tarfile.XHDTYPE, tarfile.XGLTYPE)), size=draw.choice((len(records), 2**33)))
    block = member.tobuf() + records + bytes(-len(records) % 512)
    return TAR, block * draw.choice((1, 20)) + tar(_files(draw))


def _sparse(draw: Random) -> Upload:
    """Tar archive with a sparse map that is long, or that points anywhere."""
    numbers = [str(draw.choice((0, 1, 512, 2**40, -1))) for _ in range(draw.choice((2, 50_000)))]
    content = "\n".join([str(len(numbers)), *numbers]).encode() + b"\n"
    member = tarfile.TarInfo("sparse.png")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    member.size = len(content)
    return TAR, member.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512) + bytes(1024)


def _gzip(draw: Random) -> Upload:
    """Gzip of a tar archive, of a bomb, of itself, or of several members."""
    inner = draw.choice((_tar, _pax, _sparse))(draw)[1]
    bomb = tar({"a.png": _BOMB * draw.choice((1, 10)), "b.png": b"x"})
    packed = gzip.compress(draw.choice((inner, bomb, b"", gzip.compress(inner))))
    return GZIP, packed * draw.choice((1, 1, 3)) + draw.choice((b"", b"trailing bytes"))


def _zip(draw: Random) -> Upload:
    method = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    return ZIP, zipped(_files(draw), links={"link.png": b"/etc/passwd"}, method=method)


def _zip_bomb(draw: Random) -> Upload:
    return ZIP, zipped({f"{n}.bmp": _BOMB for n in range(draw.choice((1, 10)))} | {"a.png": b"x"})


def _lying_zip(draw: Random) -> Upload:
    """Zip archive whose directory claims other sizes, offsets or counts than its members have."""
    data = bytearray(zipped(_files(draw) | {"a.png": b"x" * 500}))
    value = struct.pack("<L", draw.choice((0, 1, 2**31, 2**32 - 1)))
    entry, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    places = [entry + 20, entry + 24, entry + 42, end + 8, end + 12, end + 16]
    for place in draw.sample(places, draw.randint(1, 3)):
        data[place : place + 4] = value
    return ZIP, bytes(data) if draw.random() < 0.7 else bytes(data[:end]) * 2 + bytes(data[end:])


def _many_members(draw: Random) -> Upload:
    count = draw.choice((10, 3_000))
    if draw.random() < 0.5:
        return ZIP, zipped({f"d{n}/": b"" for n in range(count)})
    return GZIP, gzip.compress(tar({}, *(header(f"d{n}", tarfile.DIRTYPE) for n in range(count))))


def _ndjson(draw: Random) -> Upload:
    """Lines that are no JSON, too deep, too long, or have values of any type."""
    row = vector_rows(1, seed=draw.randrange(1000))[0]
    values: tuple[object, ...] = (
        None, True, 1e308, float("nan"), float("inf"), 10**400, "\ud800", "x" * 100_000, [], {}, [[]], [1] * 50_000,
        [None] * 48, ["1"] * 48, [1e400] * 48, {"a": {"b": 1}}, -0.0, "9999-12-31T23:59:59-01:00",
    )  # fmt: skip
    names = ("id", "modality", "identity", "camera", "captured_at", "attributes", "vector", "unknown", "")
    rows = [row | {draw.choice(names): draw.choice(values)} for _ in range(draw.randint(1, 5))]
    extra = (b"{" * 100_000, b"[" * 50_000 + b"]" * 50_000, b"\xff\xfe", b"null", b'"', b"{}", b"\0", b"a" * 900_000)
    return NDJSON, ndjson([*rows, row]) + draw.choice(extra) + draw.choice((b"\n", b"\r\n", b""))


def _parquet(draw: Random) -> Upload:
    """Parquet with columns of wrong types, ragged or long lists, and long texts."""
    rows = draw.choice((1, 7, 200))
    vectors = {
        "right": list(unit_vectors(rows)),
        "ragged": [[0.5] * (n % 50) for n in range(rows)],
        "null": [None] * rows,
        "text": ["x"] * rows,
        "nested": [[[1.0]]] * rows,
        "long": arrow.array([[0.0] * 100_000] * min(rows, 20) + [[0.0]] * max(0, rows - 20)),
        "infinite": [np.full(48, np.inf, np.float32)] * rows,
        "integers": [[1] * 48] * rows,
    }
    texts = {"right": [f"i{n}" for n in range(rows)], "long": ["x" * 50_000] * rows, "number": list(range(rows))}
    columns = {"id": draw.choice(list(texts.values())), "vector": draw.choice(list(vectors.values()))}
    columns["modality"] = draw.choice((["infrared"] * rows, ["x-ray"] * rows, [None] * rows))
    if draw.random() < 0.5:
        columns[draw.choice(("identity", "camera", "attributes", "captured_at", "unknown"))] = ["{"] * rows
    options = {
        "compression": draw.choice(("snappy", "zstd", "gzip", "none")),
        "row_group_size": draw.choice((1, 1_000)),
    }
    return PARQUET, parquet(columns, **options)


def _mislabelled(draw: Random) -> Upload:
    """Valid content under the type of another format, or no content."""
    _, data = draw.choice(_FORMATS)(draw)
    return draw.choice((TAR, GZIP, ZIP, NDJSON, PARQUET)), draw.choice((data, b"", data[:20], draw.randbytes(600)))


def _manifest(draw: Random) -> Upload:
    """Archive with a manifest of images that are missing, repeated or outside of it."""
    names = draw.choices((*_NAMES, "0.png", "missing.png"), k=draw.randint(1, 6))
    lines = "\n".join(json.dumps({"path": name, "modality": draw.choice(("visible", "x", 3))}) for name in names)
    table = "path,modality\n" + "\n".join(f'"{name}",visible' for name in names) + draw.choice(("", '\n"', "\n,,,,"))
    out = draw.choice(({"manifest.jsonl": lines.encode()}, {"manifest.csv": table.encode("utf-8", "replace")}))
    return TAR, tar(out | _files(draw))


_FORMATS: tuple[Maker, ...] = (_tar, _gzip, _zip, _ndjson, _parquet)
_MAKERS: tuple[Maker, ...] = (
    *_FORMATS,
    _pax,
    _sparse,
    _zip_bomb,
    _lying_zip,
    _many_members,
    _mislabelled,
    _manifest,
)
