"""Times of layers in OpenVINO: its own counters, run on small nets."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_deploy.artifacts.sidecar import OPENVINO_KEY
from fcn_deploy.errors import UsageError
from fcn_deploy.graph.model import serialize
from fcn_deploy.mixed_precision.openvino_times import _by_layer, _medians, time_openvino_layers
from fcn_deploy.passes import pipelines
from fcn_deploy.quantization.cpu_scheme import CpuScheme
from fcn_deploy.quantization.openvino import emit_openvino
from fcn_deploy.runtime.openvino.backend import ExecutedNode
from tests.support.openvino import needs_openvino
from tests.support.quantizable_graphs import upsampling

LAYERS = ("c0", "up", "logits")


@pytest.fixture(scope="module")
def graphs():
    model, ranges = upsampling()
    integers = pipelines.before_openvino_integers(["up"])(model.clone()).model
    emit_openvino(integers, ranges, ["up"], CpuScheme(127, "nearest"), {}, ["up"])
    for each in (model, integers):
        each.metadata_props[OPENVINO_KEY] = "fp32"
    return {"float": serialize(model), "int8": serialize(integers)}


def image(size):
    return {"image": np.random.default_rng(0).normal(size=(1, 4, size, size)).astype(np.float32)}


@needs_openvino
def test_every_layer_is_timed_in_float_and_in_int8_a_transposed_one_too(graphs):
    begin = time.perf_counter()
    times = time_openvino_layers(graphs, LAYERS, image(96), rounds=3)
    whole = 1000 * (time.perf_counter() - begin)
    for of_layers in times.values():
        assert set(of_layers) == set(LAYERS)
        assert 0 < sum(of_layers.values()) < whole


@needs_openvino
def test_a_layer_that_computes_more_takes_longer(graphs):
    small, large = (time_openvino_layers(graphs, LAYERS, image(size), rounds=5) for size in (32, 384))
    for name in graphs:
        assert all(large[name][layer] > small[name][layer] for layer in LAYERS)


def test_layers_that_share_a_kernel_share_its_time():
    nodes = [
        ExecutedNode(("a/WithoutBiases", "a", "b", "b/Relu"), "Convolution", "f32", 10),
        ExecutedNode(("b/DepthToSpace",), "DepthToSpace", "f32", 3),
        ExecutedNode(("c",), "Convolution", "f32", None),
        ExecutedNode((), "Reorder", "f32", 100),
    ]
    assert _by_layer(nodes, ("a", "b", "c")) == {"a": 5, "b": 8}


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=9))
def test_the_times_of_the_runs_are_found_from_means_that_are_rounded_down(microseconds):
    means = [sum(microseconds[:count]) // count for count in range(1, len(microseconds) + 1)]
    found = _medians([{"a": float(count * mean)} for count, mean in enumerate(means, 1)])["a"]
    assert abs(1000 * found - np.median(microseconds[1:])) <= len(microseconds)


@pytest.mark.parametrize("rounds", [0, -1])
def test_less_than_one_round_is_refused(rounds):
    with pytest.raises(UsageError, match="`rounds` must be at least 1"):
        time_openvino_layers({}, LAYERS, {}, rounds=rounds)
