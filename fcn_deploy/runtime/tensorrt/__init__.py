"""Plans of TensorRT, TensorRT-RTX and the lean runtime, run on a GPU."""
