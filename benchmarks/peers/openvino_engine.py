"""A graph in OpenVINO: ``python -m benchmarks.peers.openvino_engine FILE f32|bf16 CORES``.

Says ``{"ready": true}`` once it is compiled: for one caller with all cores, and for as many callers as cores with a
thread each. Then answers each line ``{"callers", "batch", "seconds"}`` of its input with ``{"rate", "vectors"}``: crops
a second, one batch after the other for each caller, and the vectors of the last. The crops are those of
``benchmarks.harness.session``. It is OpenVINO itself and not ONNX Runtime's execution provider, which calls the same
kernels but comes with another version of ONNX Runtime, and cuts graphs in parts.
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
    wishes = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores}
    models = {
        int(cores): core.compile_model(file, "CPU", {**wishes, "NUM_STREAMS": cores}),
        1: core.compile_model(file, "CPU", {**wishes, "PERFORMANCE_HINT": "LATENCY"}),
    }
    _, height, width, _ = models[1].input("image").partial_shape
    images, modalities = pixels(height.get_length(), width.get_length())
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        wish = json.loads(line)
        crops = {"image": images[: wish["batch"]], "modality": modalities[: wish["batch"]]}
        requests = [models[wish["callers"]].create_infer_request() for _ in range(wish["callers"])]
        for request in requests:
            request.infer(crops)

        def rate(request, crops=crops, seconds=wish["seconds"]):
            took = sample(lambda: request.infer(crops), seconds)
            return len(took) / sum(took)

        with ThreadPoolExecutor(len(requests)) as pool:
            batches = sum(pool.map(rate, requests))
        vectors = requests[0].get_output_tensor().data.tolist()
        print(json.dumps({"rate": wish["batch"] * batches, "vectors": vectors}), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
