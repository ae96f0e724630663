"""ONNX to engine: the file a device runs and the sidecar that says what it is."""

from fcn_deploy.build.engine import BuildConfig, Engine
from fcn_deploy.build.onnxruntime import build_onnxruntime
from fcn_deploy.build.profiles import ImageProfile
from fcn_deploy.build.tensorrt import TensorRTConfig, build_tensorrt

__all__ = ["BuildConfig", "Engine", "ImageProfile", "TensorRTConfig", "build_onnxruntime", "build_tensorrt"]
