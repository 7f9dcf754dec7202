"""bfloat16 with OpenVINO: close to fp32, concurrent, refused without hardware support, and without telemetry."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from models.card import Modality, Precision
from server.embedding import session
from server.embedding.openvino_session import Bfloat16Session
from server.embedding.providers import OPENVINO
from server.embedding.session import ModelRefused, OnnxEmbedder
from tests.drawing import draw_person

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="there is no OpenVINO for this processor")

MODEL = Path(__file__).parents[3] / "models" / "zoo" / "baseline-lite"


def people(count: int) -> tuple[np.ndarray, np.ndarray]:
    crops = [draw_person(n, list(Modality)[n % 2], size=(128, 64)) for n in range(count)]
    return np.stack(crops), np.arange(count) % 2


def test_embeddings_match_fp32_for_any_batch_size_and_concurrent_callers() -> None:
    images, modalities = people(8)
    exact = OnnxEmbedder(MODEL, Precision.FP32, "cpu", 1).embed(images, modalities)
    ours = Bfloat16Session((MODEL / "model.onnx").read_bytes(), 1, 2)

    def run(rows: int) -> np.ndarray:
        return ours.run(["embedding"], {"image": images[:rows], "modality": modalities[:rows]})[0]

    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(run, (1, 8, 3, 5, 8, 2)))
    for vectors in parts:
        assert vectors.dtype == np.float32
        assert (vectors * exact[: len(vectors)]).sum(axis=1).min() > 0.999
    assert not np.shares_memory(parts[1], parts[4])


def test_embedder_reports_bf16_and_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "bfloat_is_fast", lambda: True)  # without tiles OpenVINO computes in float32
    embedder = OnnxEmbedder(MODEL, Precision.BF16, "cpu", 2)
    assert (embedder.precision, embedder.provider) == (Precision.BF16, OPENVINO)
    images, modalities = people(4)
    np.testing.assert_allclose(np.linalg.norm(embedder.embed(images, modalities), axis=1), 1, atol=1e-3)


def test_bf16_is_refused_without_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "bfloat_is_fast", lambda: False)
    with pytest.raises(ModelRefused, match="amx_bf16"):
        OnnxEmbedder(MODEL, Precision.BF16, "cpu", 1)


def test_telemetry_is_never_loaded() -> None:
    code = f"""
import sys
from pathlib import Path
from server.embedding.openvino_session import Bfloat16Session
Bfloat16Session(Path({str(MODEL / "model.onnx")!r}).read_bytes(), 1, 2)
sys.exit(sys.modules["openvino_telemetry"] is not None)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_signals_are_handled_after_another_thread_destroys_a_session() -> None:
    code = f"""
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from server.embedding.openvino_session import Bfloat16Session
received = []
signal.signal(signal.SIGUSR1, lambda *_: received.append(1))
sessions = [Bfloat16Session(Path({str(MODEL / "model.onnx")!r}).read_bytes(), 1, 2)]
with ThreadPoolExecutor(1) as pool:
    pool.submit(sessions.clear).result()
signal.raise_signal(signal.SIGUSR1)
assert received
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_that_use_openvino_first_at_once_share_one_core() -> None:
    script = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from server.embedding.openvino_session import openvino_core

together = Barrier(4)

def first_use(_: int) -> int:
    together.wait()
    return id(openvino_core())

with ThreadPoolExecutor(4) as pool:
    print(len(set(pool.map(first_use, range(4)))))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=MODEL.parents[2], capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout.split() == ["1"]
