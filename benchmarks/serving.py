"""What HTTP costs beside the bare ONNX session, measured in one run on the same cores.

    python benchmarks/serving.py [MODEL_FOLDER]

Starts `vireid serve`, then alternates between the session alone and the server, so that both meet the same machine.
Prints JSON: medians and ratios. The client shares the cores with the server, which counts against the server.
"""

from __future__ import annotations

import io
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import numpy as np
from PIL import Image

from models.card import Modality, Precision
from server.embedding.session import OnnxEmbedder
from vireid.drawing import draw_person

ROUNDS, SINGLES, LARGE, CLIENTS = 5, 60, 12, 4
CROPS = 16  # in a large request


@contextmanager
def serving(models: Path):
    """A server of its own on a free port, over an empty data directory."""
    with socket.socket() as free, TemporaryDirectory() as data:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        environment = os.environ | {"VIREID_PORT": str(port), "VIREID_DATA_DIR": data, "VIREID_MODEL_DIR": str(models)}
        server = subprocess.Popen(["vireid", "serve"], env=environment, stdout=subprocess.DEVNULL)
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                for _ in range(150):
                    try:
                        if client.get("/readyz").status_code == 200:
                            break
                    except httpx2.TransportError:
                        time.sleep(0.2)
                yield client
        finally:
            server.terminate()
            server.wait()


def encoded(count: int) -> list[bytes]:
    """JPEG crops of drawn people, 256 × 128."""
    crops = []
    for person in range(count):
        file = io.BytesIO()
        Image.fromarray(draw_person(person, Modality.VISIBLE, size=(256, 128))).save(file, "JPEG", quality=90)
        crops.append(file.getvalue())
    return crops


def form(client: httpx2.Client, crops: list[bytes]) -> Callable[[], None]:
    """A call that sends an already encoded form: the client's own encoding is not what is measured."""
    files = [("images", (f"{i}.jpg", crop, "image/jpeg")) for i, crop in enumerate(crops)]
    request = client.build_request("POST", "/v1/embeddings", files=files, data={"modality": "visible"})
    body = request.read()
    headers = {"content-type": request.headers["content-type"], "accept": "application/x-npy"}

    def send() -> None:
        client.post("/v1/embeddings", content=body, headers=headers).raise_for_status()

    return send


def milliseconds(call: Callable[[], object], times: int) -> list[float]:
    """Duration of each call."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        durations.append(1000 * (time.perf_counter() - started))
    return durations


def rate(call: Callable[[], object], crops: int, times: int, threads: int = 1) -> float:
    """Crops a second."""
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: call(), range(times)))
    return crops * times / (time.perf_counter() - started)


def main(folder: Path) -> None:
    embedder = OnnxEmbedder(folder, Precision.FP32, "cpu", None)
    size = embedder.card.input
    images = np.random.default_rng(0).integers(0, 256, (embedder.largest_batch, size.height, size.width, 3), np.uint8)
    modalities = np.zeros(len(images), np.int64)
    figures: dict[str, list[float]] = {"raw_ms": [], "http_ms": [], "raw_rate": [], "http_rate": []}
    with serving(folder.parent) as client:
        single, large = form(client, encoded(1)), form(client, encoded(CROPS))
        for _ in range(ROUNDS):
            figures["raw_ms"] += milliseconds(lambda: embedder.embed(images[:1], modalities[:1]), SINGLES)
            figures["http_ms"] += milliseconds(single, SINGLES)
            figures["raw_rate"].append(rate(lambda: embedder.embed(images, modalities), len(images), 4 * LARGE))
            figures["http_rate"].append(rate(large, CROPS, 2 * LARGE, CLIENTS))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    answer = {
        "model": embedder.card.name,
        "provider": embedder.provider,
        "cores": os.cpu_count(),
        "one crop, one client": {
            "session_p50_ms": round(medians["raw_ms"], 2),
            "http_p50_ms": round(medians["http_ms"], 2),
            "difference_ms": round(medians["http_ms"] - medians["raw_ms"], 2),
        },
        f"requests of {CROPS} crops, {CLIENTS} clients": {
            "session_crops_per_s": round(medians["raw_rate"], 1),
            "http_crops_per_s": round(medians["http_rate"], 1),
            "ratio": round(medians["http_rate"] / medians["raw_rate"], 3),
        },
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "models/zoo/baseline-lite"))
