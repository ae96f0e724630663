"""How long each layer takes, by ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import onnx_ir as ir

from fcn_deploy.errors import UsageError
from fcn_deploy.graph.model import parse
from fcn_deploy.graph.ops import CONVOLUTIONS
from fcn_deploy.passes.winograd import winograd_layers, winograd_nodes
from fcn_deploy.quantization.tensors import activation
from fcn_deploy.runtime.backend import Array
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

_KERNEL = "_kernel_time"
# What ONNX Runtime's optimisers add to the names of the nodes they make.
_SUFFIXES = re.compile(r"(_nchwc|_token_\d+|_nhwc)+$")


def time_layers(
    graphs: Mapping[str, bytes],
    layers: Collection[str],
    feeds: Mapping[str, Array],
    *,
    rounds: int = 5,
    threads: int | None = None,
) -> dict[str, dict[str, float]]:
    """Times each layer of several graphs on the same input: one graph after the other, round by round.

    A first round warms up and does not count. The time of a layer is that of the kernel of its convolution, with what
    is fused into it; or of all nodes that `passes.winograd` or `passes.subpixel` has made of it. Conversions between
    layouts or types are not part of it.

    Args:
        graphs: Contents of ONNX files of one net, by name.
        layers: Names of the net's convolutions.
        feeds: Input of the graphs.
        rounds: How many runs count.
        threads: CPU threads; None for ONNX Runtime's default.

    Returns:
        For each graph, the median milliseconds of each layer that the profile tells about.

    Raises:
        ArtifactError: ONNX Runtime cannot load a graph.
        UsageError: `rounds` is less than 1.
    """
    if rounds < 1:
        raise UsageError("`rounds` must be at least 1", got=rounds)
    with tempfile.TemporaryDirectory(prefix="fcn-deploy-") as folder:
        profilers = {
            name: OnnxRuntimeBackend(data, threads=threads, profile_prefix=Path(folder, f"{index}-"))
            for index, (name, data) in enumerate(graphs.items())
        }
        for _ in range(1 + rounds):
            for profiler in profilers.values():
                profiler.infer(feeds)
        return {
            name: _medians(profiler.end_profiling(), _kernel_names(parse(graphs[name]), layers), rounds)
            for name, profiler in profilers.items()
        }


def _kernel_names(model: ir.Model, layers: Collection[str]) -> dict[str, str]:
    """The layer of each name that a kernel may have: that of the convolution or its activation, node or tensor."""
    names = {}
    for node in model.graph:
        if node.op_type in CONVOLUTIONS and node.name in layers:
            last = activation(node)
            fused = last.producer()
            assert fused is not None
            for called in (node.name, node.outputs[0].name, fused.name, last.name):
                names[str(called)] = str(node.name)
            # What puts the subpixels of a transposed convolution in their places is part of it.
            names.update({f"{node.name}/{operator}": str(node.name) for operator in ("DepthToSpace", "Slice")})
    for layer in winograd_layers(model.graph):
        if layer in layers:
            names.update(dict.fromkeys(winograd_nodes(model.graph, layer), layer))
    return names


def _medians(profile: Path, names: Mapping[str, str], rounds: int) -> dict[str, float]:
    kernels: dict[str, list[float]] = defaultdict(list)
    for event in json.loads(profile.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            called = _SUFFIXES.sub("", event["name"].removesuffix(_KERNEL))
            if called in names:
                kernels[called].append(event["dur"] / 1000)
    times: dict[str, float] = defaultdict(float)
    for called, runs in kernels.items():
        times[names[called]] += statistics.median(runs[-rounds:])
    return dict(times)
