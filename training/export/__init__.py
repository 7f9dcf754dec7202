"""Export of trained networks: ONNX, fp16, int8, precision variants and releases."""
