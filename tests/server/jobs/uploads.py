"""Archives and vector files for tests, valid and malicious."""

from __future__ import annotations

import gzip
import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet

from server.domain.types import Vectors
from tests.server.stub_model import DIMENSION

__all__ = ["header", "ndjson", "parquet", "tar", "targz", "unit_vectors", "vector_rows", "zipped"]

Files = Mapping[str, bytes]


def tar(files: Files, *extra: tarfile.TarInfo, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """Create a tar archive of ``files`` and of ``extra`` members without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, data in files.items():
            archive.addfile(header(name, size=len(data)), io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return out.getvalue()


def targz(files: Files) -> bytes:
    """Create a gzipped tar archive."""
    return gzip.compress(tar(files))


def header(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", size: int = 0) -> tarfile.TarInfo:
    """Create a tar member header."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return member


def zipped(files: Files, *, links: Files | None = None, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Create a zip archive of ``files`` and of symbolic ``links`` (name to target)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for name, target in (links or {}).items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, target)
    return out.getvalue()


def unit_vectors(count: int, *, seed: int = 0) -> Vectors:
    """Return random unit vectors, float32 ``[count, DIMENSION]``."""
    drawn = np.random.default_rng(seed).standard_normal((count, DIMENSION))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def vector_rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return items with precomputed vectors as JSON objects."""
    return [
        {"id": f"v{number:05}", "modality": "infrared", "identity": f"p{number % 7}", "vector": vector.tolist()}
        for number, vector in enumerate(unit_vectors(count, seed=seed))
    ]


def ndjson(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Encode one row per line."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(columns: Mapping[str, Any], **options: Any) -> bytes:
    """Create a Parquet file of these columns."""
    out = io.BytesIO()
    arrow.parquet.write_table(arrow.table(dict(columns)), out, **options)
    return out.getvalue()
