"""How long each layer takes, by OpenVINO's own counters."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from itertools import pairwise

from fcn_deploy.errors import UsageError
from fcn_deploy.runtime.backend import Array
from fcn_deploy.runtime.openvino.backend import ExecutedNode, OpenVinoBackend
from fcn_deploy.runtime.openvino.precisions import OF_CONV

# What a layer is called where its addition of the bias is a node of its own, and the nodes that `passes.subpixel` makes
# of a transposed convolution, beside the convolution itself.
_PARTS = (OF_CONV, "/DepthToSpace", "/Slice")


def time_openvino_layers(
    graphs: Mapping[str, bytes],
    layers: Collection[str],
    feeds: Mapping[str, Array],
    *,
    rounds: int = 5,
    threads: int | None = None,
) -> dict[str, dict[str, float]]:
    """Times each layer of several graphs on the same input: one graph after the other, round by round.

    A first round warms up and does not count. The time of a layer is that of the kernels that OpenVINO says it made of
    its nodes, with what is fused into them; layers that share a kernel share its time equally. Conversions between
    layouts or types are not part of it.

    OpenVINO tells the mean of all runs so far, in whole microseconds. The time of the n-th run is n times the mean
    after it, less n - 1 times the mean before it, so it is known to n microseconds.

    Args:
        graphs: Contents of ONNX files of one net, by name.
        layers: Names of the net's convolutions.
        feeds: Input of the graphs.
        rounds: How many runs count.
        threads: CPU threads; None for one for each core.

    Returns:
        For each graph, the median milliseconds of each layer that OpenVINO tells about.

    Raises:
        ArtifactError: OpenVINO cannot load or run a graph.
        DependencyError: OpenVINO is not installed.
        UsageError: `rounds` is less than 1.
    """
    if rounds < 1:
        raise UsageError("`rounds` must be at least 1", got=rounds)
    sums: dict[str, list[dict[str, float]]] = {name: [] for name in graphs}
    with ExitStack() as stack:
        backends = {
            name: stack.enter_context(OpenVinoBackend(data, threads=threads, profile=True))
            for name, data in graphs.items()
        }
        for done in range(1, rounds + 2):
            for name, backend in backends.items():
                backend.infer(feeds)
                means = _by_layer(backend.executed(), layers)
                sums[name].append({layer: done * mean for layer, mean in means.items()})
    return {name: _medians(after) for name, after in sums.items()}


def _by_layer(nodes: Iterable[ExecutedNode], layers: Collection[str]) -> dict[str, float]:
    """The mean microseconds of each layer that has run."""
    means: dict[str, float] = defaultdict(float)
    for node in nodes:
        owners = {owner for name in node.layers if (owner := _owner(name, layers)) is not None}
        for owner in owners:
            if node.microseconds is not None:
                means[owner] += node.microseconds / len(owners)
    return dict(means)


def _owner(name: str, layers: Collection[str]) -> str | None:
    names = (name, *(name.removesuffix(part) for part in _PARTS))
    return next((each for each in names if each in layers), None)


def _medians(sums: list[dict[str, float]]) -> dict[str, float]:
    """The median milliseconds of each layer, by what all runs up to each took together, in microseconds."""
    runs = {layer: [after[layer] - before[layer] for before, after in pairwise(sums)] for layer in sums[0]}
    return {layer: max(0.0, statistics.median(each)) / 1000 for layer, each in runs.items()}
