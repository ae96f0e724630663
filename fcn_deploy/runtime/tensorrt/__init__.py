"""Runs plans of TensorRT and TensorRT-RTX on a GPU, with these libraries or with TensorRT-lean."""
