"""What the layers of an engine run in, by what OpenVINO tells of the graph that it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fcn_deploy.artifacts.sidecar import Sidecar
from fcn_deploy.errors import ArtifactError
from fcn_deploy.runtime.cpu import is_arm64
from fcn_deploy.runtime.openvino import library
from fcn_deploy.runtime.openvino.backend import ExecutedNode

# OpenVINO's names of types, of what a layer reads, and ours.
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
_LAYERS = ("Convolution", "Deconvolution")
# What it calls the convolution of a Conv with a bias, if the addition of the bias is not fused into it.
OF_CONV = "/WithoutBiases"


def layer_precisions(nodes: Iterable[ExecutedNode], layers: Iterable[str]) -> dict[str, str | None]:
    """Returns what layers run in, by name; None for a layer that OpenVINO does not tell of.

    Args:
        nodes: What OpenVINO runs.
        layers: Names of convolutions, transposed or not.
    """
    convolutions = [node for node in nodes if node.kind in _LAYERS]
    by_layer = {name.removesuffix(OF_CONV): node.precision for node in convolutions for name in node.layers}
    return {name: _PRECISIONS.get(by_layer.get(name, "")) for name in layers}


def listed(layers: Mapping[str, str | None]) -> str:
    """Returns layers and what they run in, in words."""
    return ", ".join(f"{name} in {kind.upper() if kind else 'unknown'}" for name, kind in layers.items())


def check_precisions(nodes: Iterable[ExecutedNode], sidecar: Sidecar, engine: object) -> None:
    """Checks that layers run here in what they ran in where the engine was built.

    Another version of OpenVINO, another CPU or another device may have no kernel for them.

    Args:
        nodes: What OpenVINO runs.
        sidecar: Of the engine.
        engine: What to call it in an error.

    Raises:
        ArtifactError: A layer ran in the precision asked for when the engine was built, and does not here.
    """
    asked, built = sidecar.precision.layers, sidecar.precision.achieved_layers or {}
    found = layer_precisions(nodes, asked)
    told = {name: kind for name, kind in found.items() if kind is not None}
    missed = {name: kind for name, kind in told.items() if kind != asked[name] == built.get(name)}
    if missed:
        fix = f"install openvino=={sidecar.library}, or build the engine again with this version"
        if is_arm64() and any(asked[name] == "int8" for name in missed):
            fix = 'build it with `backend="onnxruntime"`: on Arm OpenVINO has few INT8 kernels'
        raise ArtifactError(
            f"OpenVINO {library.version()} does not run {engine} here in the precision that it was built for",
            got=listed(missed),
            expected=listed({name: asked[name] for name in missed}),
            fix=fix,
        )
