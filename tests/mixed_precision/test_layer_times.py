"""Times of layers: those of transposed convolutions too, however an engine computes them."""

import numpy as np
import pytest

from fcn_deploy.graph.model import serialize
from fcn_deploy.mixed_precision.layer_times import time_layers
from fcn_deploy.passes import pipelines
from fcn_deploy.quantization.cpu_scheme import CpuScheme
from fcn_deploy.quantization.onnxruntime import emit_onnxruntime
from tests.support.quantizable_graphs import upsampling


@pytest.fixture(scope="module")
def times():
    model, ranges = upsampling()
    integers = pipelines.before_onnxruntime_integers(["up"])(model.clone()).model
    integers = emit_onnxruntime(integers, ranges, ["up"], CpuScheme(64, "nearest"))
    graphs = {"float": serialize(model), "int8": serialize(integers)}
    image = np.random.default_rng(0).normal(size=(1, 4, 96, 96)).astype(np.float32)
    return time_layers(graphs, ["c0", "up", "logits"], {"image": image}, rounds=3)


def test_a_transposed_convolution_is_timed_in_float_and_in_int8(times):
    assert set(times["float"]) == set(times["int8"]) == {"c0", "up", "logits"}
