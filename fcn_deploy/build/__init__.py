"""ONNX to engine: the file a device runs and the sidecar that says what it is."""

from fcn_deploy.build.engine import BuildConfig, Engine
from fcn_deploy.build.onnxruntime import build_onnxruntime

__all__ = ["BuildConfig", "Engine", "build_onnxruntime"]
