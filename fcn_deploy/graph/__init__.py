"""What several rooms ask of an ONNX graph."""
