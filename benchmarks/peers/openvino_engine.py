"""A graph in OpenVINO: ``python -m benchmarks.peers.openvino_engine FILE f32|bf16 CORES``.

Prints ``{"ready": true}`` once the graph is compiled: for one caller with all cores, and for as many callers as cores
with one thread each. Then it answers each input line ``{"callers", "batch", "seconds"}`` with ``{"rate", "vectors"}``:
crops per second, with consecutive batches per caller, and the vectors of the last batch. The crops are those of
``benchmarks.harness.pixels``. It uses OpenVINO directly, not ONNX Runtime's execution provider, which calls the same
kernels but requires another version of ONNX Runtime and splits graphs.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import openvino

from benchmarks.harness.pixels import pixels
from benchmarks.harness.statistics import sample


def main(file: str, precision: str, cores: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        sys.exit("this processor has no instructions for bf16")
    requests = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores}
    models = {
        int(cores): core.compile_model(file, "CPU", {**requests, "NUM_STREAMS": cores}),
        1: core.compile_model(file, "CPU", {**requests, "PERFORMANCE_HINT": "LATENCY"}),
    }
    _, height, width, _ = models[1].input("image").partial_shape
    images, modalities = pixels(height.get_length(), width.get_length())
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        crops = {"image": images[: request["batch"]], "modality": modalities[: request["batch"]]}
        requests = [models[request["callers"]].create_infer_request() for _ in range(request["callers"])]
        for request in requests:
            request.infer(crops)

        def rate(request, crops=crops, seconds=request["seconds"]):
            took = sample(lambda: request.infer(crops), seconds)
            return len(took) / sum(took)

        with ThreadPoolExecutor(len(requests)) as pool:
            batches = sum(pool.map(rate, requests))
        vectors = requests[0].get_output_tensor().data.tolist()
        print(json.dumps({"rate": request["batch"] * batches, "vectors": vectors}), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
