"""A graph in OpenVINO: ``python -m benchmarks.peers.openvino_engine FILE f32|bf16 CORES``.

Says ``{"ready": true}`` once it is compiled. Then answers each line ``{"batch", "seconds"}`` of its input with
``{"rate", "vectors"}``: crops a second, one batch after the other, and the vectors of the last. The crops are those of
``benchmarks.harness.session``. It is OpenVINO itself and not ONNX Runtime's execution provider, which calls the same
kernels but comes with another version of ONNX Runtime, and cuts graphs in parts.
"""

import json
import os
import sys

import openvino

from benchmarks.harness.pixels import pixels
from benchmarks.harness.statistics import sample


def main(file: str, precision: str, cores: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    wishes = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores, "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        sys.exit("this processor has no instructions for bf16")
    model = core.compile_model(file, "CPU", wishes)
    _, height, width, _ = model.input("image").partial_shape
    images, modalities = pixels(height.get_length(), width.get_length())
    request = model.create_infer_request()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        wish = json.loads(line)
        crops = {"image": images[: wish["batch"]], "modality": modalities[: wish["batch"]]}
        request.infer(crops)
        took = sample(lambda crops=crops: request.infer(crops), wish["seconds"])
        rate = wish["batch"] * len(took) / sum(took)
        print(json.dumps({"rate": rate, "vectors": request.get_output_tensor().data.tolist()}), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
