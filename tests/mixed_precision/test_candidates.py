from dataclasses import replace

import numpy as np
import pytest

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.onnxruntime import build_onnxruntime
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.model import parse
from fcn_deploy.mixed_precision.candidates import Candidates
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.runtime.openvino.backend import OpenVinoBackend
from fcn_deploy.runtime.openvino.precisions import layer_precisions
from tests.support.openvino import needs_bf16, needs_openvino

KEPT = {"conv1_1", "score_fr", "score_pool3_fr", "score_pool4_fr"}


def quantized(data):
    """The convolutions of a graph that read integers."""
    convs = [node for node in parse(data).graph if node.op_type == "Conv"]
    return {node.name for node in convs if node.inputs[1].producer() is not None}


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_a_candidate_quantises_the_layers_asked_for(candidates, target):
    made = candidates(target=target)
    assert set(made.layers) - set(made.start) == KEPT
    assert quantized(made.make(("fc6", "conv3_2"))) >= {"fc6", "conv3_2"}
    assert "conv3_1" not in quantized(made.make(("fc6", "conv3_2")))


def test_the_candidate_without_int8_is_the_exported_net(candidates, photos):
    made = candidates()
    net, plain = (
        Segmenter(OnnxRuntimeBackend(data), spec=made.model.spec) for data in (made.make(()), made.model.content)
    )
    # Upsampling is added up in another order: see passes.upsampling.
    np.testing.assert_allclose(net.logits(photos[0]), plain.logits(photos[0]), atol=1e-5)


def test_the_first_candidate_has_the_int8_layers_of_an_engine(candidates):
    made = candidates()
    engine = build_onnxruntime(made.model, made.config, made.ranges)
    assert {name for name, precision in engine.sidecar.precision.layers.items() if precision == "int8"} == set(
        made.start
    )
    assert candidates(int8_layers=("conv2_1", "conv1_1")).start == ("conv1_1", "conv2_1")


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_options_of_int8_and_of_winograd_do_not_reach_the_candidate_without_int8(candidates, target):
    options = {"method": "minmax", "bias_correction": False, "weight_rounding": "nearest", "winograd": ("conv1_2",)}
    made = candidates(target=target, **options)
    assert made.make(()) == candidates(target=target).make(())
    assert not any(node.op_type == "MatMul" for node in parse(made.make(made.start)).graph)


@needs_openvino
def test_what_is_timed_for_openvino_is_its_own_graph_with_the_layers_of_the_engine(candidates):
    made = candidates(target="openvino", target_cpu="vnni")
    layers = made.start[:3]
    with OpenVinoBackend(made.make_timed(layers)) as backend:
        found = layer_precisions(backend.executed(), made.layers)
    assert {name for name, precision in found.items() if precision == "int8"} == set(layers)
    with OpenVinoBackend(made.make_timed(())) as backend:
        assert set(layer_precisions(backend.executed(), made.layers).values()) == {"fp32"}


@needs_openvino
@needs_bf16
def test_on_a_base_of_bf16_float_layers_are_timed_in_it(candidates):
    made = replace(candidates(target="openvino", target_cpu="vnni"), base="bf16")
    with OpenVinoBackend(made.make_timed(())) as backend:
        assert "bf16" in layer_precisions(backend.executed(), made.layers).values()


def test_a_simulated_tensorrt_graph_is_not_timed(candidates):
    with pytest.raises(UsageError, match="cannot be timed on a CPU"):
        candidates(target="tensorrt").make_timed(())


def test_what_does_not_fit_is_refused(candidates, model, ranges_file):
    with pytest.raises(UsageError, match="unknown target; got 'tpu'"):
        candidates(target="tpu")
    with pytest.raises(InputError, match="layers that cannot be quantised; got upscore8"):
        candidates(int8_layers=("upscore8",))
    with pytest.raises(InputError, match="belong to another model"):
        Candidates(model("fcn8s"), Ranges.load(ranges_file("fcn16s")), BuildConfig("int8"))
