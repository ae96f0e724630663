"""Whether OpenVINO computes what a graph says.

It fuses a graph by rules of its own, and which of them apply depends on the whole graph. In 2026.4.1 one of them gives
all channels the bias of the first (see `fcn_deploy.passes.keep_apart`). Such an engine loads, runs and gives labels.
"""

from __future__ import annotations

import logging
import math
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, OPENVINO_KEY, SIMULATED
from fcn_deploy.errors import ArtifactError
from fcn_deploy.graph.model import ExportedModel, serialize
from fcn_deploy.runtime.backend import Backend
from fcn_deploy.runtime.image import normalize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.runtime.openvino import library
from fcn_deploy.runtime.openvino.backend import OpenVinoBackend

_log = logging.getLogger(__name__)

# Two images, so that a batch is one; small, for this costs time.
_IMAGES = ImageShape(2, 96, 128)
_GRAIN = 16
# The power of the difference as a share of that of the logits: what sums in another order, or bfloat16, may cost.
_SHARE = {"fp32": 1e-6, "bf16": 1e-2}
# Of what INT8 itself costs: a sum between two integers may be rounded to the other one. On x86 with VNNI the difference
# was that of floats: 7e-14 to 9e-6 of that cost, on three nets.
_OF_ROUNDING = 0.25
# If what INT8 costs is not known, as in a model that came with its own Q/DQ.
_UNKNOWN_SHARE = 1e-2


def check_kernels(graph: ir.Model, model: ExportedModel, base: Literal["fp32", "bf16"], *, quantized: bool) -> None:
    """Compares OpenVINO with ONNX Runtime, which computes a graph's Q/DQ in float, on images of noise.

    Args:
        graph: What the engine computes, with float32 `image` and `logits`.
        model: What it was made of.
        base: What the engine computes in where it is not quantised.
        quantized: Whether Q/DQ was added to the model here, so that the model itself shows what INT8 costs.

    Raises:
        ArtifactError: OpenVINO's logits are further from what the graph says than its rounding can explain.
    """
    image = _noise(model)
    kind = graph.metadata_props[ENGINE_KEY]
    graph.metadata_props[ENGINE_KEY] = kind + SIMULATED
    said = _logits(OnnxRuntimeBackend(serialize(graph, "the engine")), image)
    graph.metadata_props.update({ENGINE_KEY: kind, OPENVINO_KEY: base})
    found = _logits(OpenVinoBackend(serialize(graph, "the engine")), image)
    exact = _logits(OnnxRuntimeBackend(model.content), image) if quantized else said
    power = _power(exact)
    allowed = _SHARE[base] * power + (_OF_ROUNDING * _power(said - exact) if quantized else _UNKNOWN_SHARE * power)
    difference = _power(found - said)
    shares = _share(difference, power), _share(allowed, power)
    _log.debug("OpenVINO's logits differ by %.3g of their power, %.3g is allowed", *shares)
    if not difference <= allowed:
        raise ArtifactError(
            f"OpenVINO {library.version()} does not compute what this engine's graph says",
            got=f"logits that differ by {shares[0]:.2g} of their power",
            expected=f"{shares[1]:.2g} or less",
            fix="build for onnxruntime, or in another precision",
        )


def _noise(model: ExportedModel) -> NDArray[np.float32]:
    shape, images = model.graph.inputs[0].shape, _IMAGES.at_least(model.spec.min_size)
    assert shape is not None
    batch, height, width = (
        int(fixed) if isinstance(fixed, int) else size
        for fixed, size in zip((shape[0], shape[2], shape[3]), (images.batch, images.height, images.width), strict=True)
    )
    # Coarse noise that is blown up is more like an image: pixels of noise would leave the ranges that calibration saw.
    coarse = np.random.default_rng(0).integers(0, 256, (batch, -(-height // _GRAIN), -(-width // _GRAIN), 3), np.uint8)
    pixels = coarse.repeat(_GRAIN, axis=1).repeat(_GRAIN, axis=2)[:, :height, :width]
    return normalize(pixels, model.spec.normalization)


def _logits(backend: Backend, image: NDArray[np.float32]) -> NDArray[np.float64]:
    with backend:
        return backend.infer({"image": image})[backend.outputs[0].name].astype(np.float64)


def _power(values: NDArray[np.float64]) -> float:
    return float(np.square(values).sum())


def _share(part: float, power: float) -> float:
    """A part of a power, which is 0 if all logits are, as in a net whose last layer starts with weights of 0."""
    if power == 0:
        return math.inf if part > 0 else 0.0
    return part / power
