"""Floor 4: run a bundle with ONNX Runtime; needs no torch and no MLflow."""
