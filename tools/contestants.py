"""Who takes part in bench_peers.py: the names of contestants, and what each of them needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peer_report import BASELINE

# How the project's engines are built, by the name of the contestant without `ours-`.
ENGINES: Mapping[str, Mapping[str, Any]] = {
    "fp32": {},
    "int8": {"precision": "int8"},
    "openvino-bf16": {"precision": "bf16", "backend": "openvino"},
    "openvino-int8": {"precision": "int8", "backend": "openvino"},
    "openvino-int8-bf16": {"precision": "int8", "backend": "openvino", "base": "bf16"},
    # FP32 where it is not INT8, as ModelOpt's is.
    "tensorrt-simulated": {"precision": "int8", "backend": "simulation", "base": "fp32"},
}
OURS = tuple(f"ours-{name}" for name in ENGINES)
STATIC = "onnxruntime-static"
CONTROLLED = "openvino-controlled"
NNCF = ("openvino-int8", "openvino-int8-bf16", CONTROLLED)
MODELOPT = ("modelopt-onnxruntime", "modelopt-tensorrt-simulated")
# Those that run under the Python of the project, and those that run under that of the peers.
AT_HOME = ("torch-eager", "torch-channels_last", "torch-compile", BASELINE, STATIC, *MODELOPT, *OURS)
ELSEWHERE = ("openvino-fp32", *NNCF, "mnn-fp32", "ncnn-fp32")
ALL = (*AT_HOME, *ELSEWHERE)
# Converted once, by tools of the peers; ncnn is converted for each size.
CONVERTED = (*NNCF, *MODELOPT, "mnn-fp32")
NEEDS_PEERS = (*ELSEWHERE, *MODELOPT)
# Their labels tell what TensorRT would make of the net; their times tell nothing.
SIMULATED = ("modelopt-tensorrt-simulated", "ours-tensorrt-simulated")
