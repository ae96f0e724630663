"""Exported nets as other tools leave them, with Q/DQ: ONNX Runtime's quantiser, and torch's fake quantisation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn
from torch.nn import functional as F

from fcn_deploy.graph.model import exported_spec, parse
from fcn_deploy.runtime.image import normalize

_U8, _S8 = QuantType.QUInt8, QuantType.QInt8
_SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}

# How to call ONNX Runtime's quantiser: by default both activations and weights are int8, biases int32, and transposed
# convolutions quantised too.
SCHEMES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "reduced": {"activation_type": _U8, "weight_type": _S8, "per_channel": True, "reduce_range": True},
    "full": {"activation_type": _U8, "weight_type": _S8, "per_channel": True},
    "unsigned": {"activation_type": _U8, "weight_type": _U8},
    "tensorrt": {"per_channel": True, "op_types_to_quantize": ["Conv"], "extra_options": _SYMMETRIC},
    "tensorrt-all": {"per_channel": True, "extra_options": _SYMMETRIC},
    "int16": {"activation_type": QuantType.QInt16, "weight_type": _S8},
    "operators": {"activation_type": _U8, "weight_type": _S8, "quant_format": QuantFormat.QOperator},
}


class _Photos(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[np.ndarray]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        feed = next(self._feeds, None)
        return None if feed is None else {"image": feed}


def quantize(model: Path, target: Path, photos: Sequence[np.ndarray], scheme: str) -> Path:
    """Quantises an exported model by ONNX Runtime's quantiser."""
    normalization = exported_spec(parse(model.read_bytes())).normalization
    feeds = [normalize(photo[None], normalization) for photo in photos]
    quantize_static(model, target, _Photos(feeds), **{"quant_format": QuantFormat.QDQ, **SCHEMES[scheme]})
    return target


def without_spec(model: Path, target: Path) -> Path:
    """The same without metadata."""
    proto = onnx.load(model)
    del proto.metadata_props[:]
    onnx.save(proto, target)
    return target


class FakeQuantized(nn.Module):
    """A net as it is trained for INT8: its convolutions see rounded weights and activations.

    Activations are symmetric, as for TensorRT, or uint8 from 0, as for CPUs; what the last convolution gives is rounded
    as well.
    """

    def __init__(self, classes: int, symmetric: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
        self.score = nn.Conv2d(8, classes, 1)
        self.limits = (-128, 127) if symmetric else (0, 255)
        for index, layer in enumerate(self.layers):
            largest = layer.weight.detach().abs().amax((1, 2, 3))
            self.register_buffer(f"scale_{index}", largest / 127)
            self.register_buffer(f"zero_{index}", torch.zeros(8, dtype=torch.int32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.fake_quantize_per_tensor_affine(image, 0.02, 0 if self.limits[0] else 128, *self.limits)
        for index, layer in enumerate(self.layers):
            scale, zero = getattr(self, f"scale_{index}"), getattr(self, f"zero_{index}")
            weight = torch.fake_quantize_per_channel_affine(layer.weight, scale, zero, 0, -128, 127)
            x = F.relu(F.conv2d(x, weight, layer.bias, padding=1))
            x = torch.fake_quantize_per_tensor_affine(x, 0.01, 0, *self.limits)
        return self.score(x)


def export_fake_quantized(target: Path, classes: int, *, symmetric: bool, sizes: bool = True) -> Path:
    """Exports one by torch's older exporter, the one that knows fake quantisation; `sizes`: with dynamic ones."""
    torch.manual_seed(0)
    dynamic = {0: "batch", 2: "height", 3: "width"} if sizes else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            FakeQuantized(classes, symmetric).eval(),
            (torch.zeros(2, 3, 33, 47),),
            target,
            dynamo=False,
            opset_version=18,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": dynamic, "logits": dynamic},
        )
    return target
