"""Comparisons with other programs: equal library versions, vectors, exact results, request bodies."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import searcher
from benchmarks.harness.crops import draw_crops, form, tar

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("package", ["faiss-cpu", "numpy", "onnxruntime", "pillow"])
def test_both_environments_have_the_same_library_versions(package: str) -> None:
    ours, theirs = (
        set(re.findall(rf"^{package}==\S+", (ROOT / "requirements" / name).read_text("utf-8"), re.MULTILINE))
        for name in ("dev.lock", "bench.lock")
    )
    assert ours == theirs != set()


def test_lock_files_name_no_package_index() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        assert "://" not in lock.read_text("utf-8"), lock


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> searcher.Vectors:
    monkeypatch.setattr(searcher, "CACHE", tmp_path)
    return searcher.random_vectors(600, 16)


def test_vectors_are_cached_and_similar_within_a_person(data: searcher.Vectors) -> None:
    stored, queries = np.load(data.vectors), np.load(data.queries)
    assert (stored.shape, stored.dtype) == ((600, 16), np.float16)
    assert (queries.shape, queries.dtype) == ((64, 16), np.float32)
    assert np.allclose(np.linalg.norm(stored.astype(np.float32), axis=1), 1, atol=2e-3)
    scores = stored.astype(np.float32) @ stored.astype(np.float32).T
    same = np.arange(600)[:, None] // 20 == np.arange(600) // 20
    assert scores[same].mean() > 0.5 > 0.2 > scores[~same].mean()
    written = data.vectors.stat().st_mtime_ns
    assert searcher.random_vectors(600, 16) == data
    assert data.vectors.stat().st_mtime_ns == written


@pytest.mark.parametrize("cameras", [None, 10, 1])
def test_exact_result_equals_a_plain_loop(data: searcher.Vectors, cameras: int | None) -> None:
    stored, queries = np.load(data.vectors).astype(np.float64), np.load(data.queries).astype(np.float64)
    found = data.exact(cameras, 3)
    for query, rows in zip(queries, found, strict=True):
        scores = {row: float(query @ stored[row]) for row in range(600) if cameras is None or row % 100 < cameras}
        assert set(rows) == set(sorted(scores, key=scores.__getitem__)[-3:])


def test_recall_averages_over_the_answered_queries() -> None:
    exact = np.array([[1, 2], [3, 4], [5, 6]])
    assert searcher.recall(np.array([[2, 1], [4, 9]]), exact) == 0.75


def test_searcher_runs_in_a_separate_process(data: searcher.Vectors) -> None:
    with searcher.open_searcher("ours", data, ours=True) as ours:
        for cameras in (None, 1):
            answer = ours.search(2, cameras, 0, k=3)
            assert answer.rows.shape == (2, 3)
            assert answer.ms > 0
            assert searcher.recall(answer.rows, data.exact(cameras, 3)) == 1
        with pytest.raises(RuntimeError, match="KeyError"):
            ours.search(1, 77, 0)


def test_form_body_contains_files_and_fields() -> None:
    body = form([b"abc", b"d\r\ne"], modality="visible")
    boundary = body.headers["Content-Type"].partition("boundary=")[2]
    parts = body.content.split(f"--{boundary}".encode())
    assert [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]] == [b"visible\r\n", b"abc\r\n", b"d\r\ne\r\n"]
    assert parts[-1] == b"--\r\n"


def test_tar_contains_every_crop() -> None:
    import io
    import tarfile

    crops = draw_crops(2, size=(32, 16))
    with tarfile.open(fileobj=io.BytesIO(tar(crops))) as archive:
        assert [archive.extractfile(member).read() for member in archive] == crops  # type: ignore[union-attr]
