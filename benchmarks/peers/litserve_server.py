"""LitServe with an ONNX file: ``python -m benchmarks.peers.litserve_server FILE PORT CORES json|bytes``.

Batches of up to 8, as in vireid; one worker with one thread per core and LitServe's own queue, which was faster than
one worker per core and than its fast queue (206 crops per second, compared with 188 and 150). ``json`` is the format
of its documentation; ``bytes`` is its cheapest input. Files of a form cannot be sent to its workers.
"""

import base64
import sys
from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Depends, Request, Response

from benchmarks.peers.decoding import Model


async def _body(request: Request) -> bytes:
    return await request.body()


class Json(litserve.LitAPI):
    """``{"image": base64}`` → ``{"embedding": [...]}``."""

    def __init__(self, file: Path, threads: int) -> None:
        super().__init__(max_batch_size=8, batch_timeout=0.002)
        self._file, self._threads = file, threads

    def setup(self, device: str) -> None:  # noqa: ARG002
        self._model = Model(self._file, self._threads)

    def decode_request(self, request: Request) -> Any:
        return self._model.decode(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self._model.embed(x)

    def unbatch(self, output: Any) -> Any:
        return list(output)

    def encode_response(self, output: Any) -> Any:
        return {"embedding": output.tolist()}


class Bytes(Json):
    """Maps a file as body to float32."""

    # LitServe looks at the annotation itself, so that it must not be a string.
    def decode_request(self, request: Annotated[bytes, Depends(_body)]) -> Any:
        return self._model.decode(request)

    def encode_response(self, output: Any) -> Any:
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    kind = {"json": Json, "bytes": Bytes}[sys.argv[4]]
    server = litserve.LitServer(kind(Path(sys.argv[1]), int(sys.argv[3])), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
