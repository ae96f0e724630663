"""The FP16 audit: what it finds in histograms and weights, and which other tensors hold the same values."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.ranges import Histogram, Range
from fcn_deploy.graph.model import parse
from fcn_deploy.quantization.fp16_range import LARGEST, MARGIN, audit_fp16_range
from fcn_deploy.quantization.tensorrt import emit_tensorrt
from tests.support.quantizable_graphs import make_node


def model(before=(), **changes):
    nodes = [
        *before,
        make_node("Conv", "image w0", "c0"),
        make_node("Relu", "c0", "r0"),
        make_node("MaxPool", "r0", "p0", kernel_shape=[2, 2], strides=[2, 2]),
        make_node("Conv", "p0 w1", "c1"),
        make_node("Conv", "c1 w2", "logits"),
    ]
    made = {each.output[0] for each in nodes}
    constants = {f"w{index}": np.ones((4, 4, 1, 1), np.float32) for index in range(3)} | changes
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4, "h", "w_"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "oh", "ow"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name not in made],
        value_info=[
            helper.make_tensor_value_info(n.output[0], TensorProto.FLOAT, ["n", 4, None, None]) for n in nodes[:-1]
        ],
    )
    return parse(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())


def seen(low, high):
    return Histogram(low, high, min(low, 0.0), max(high, 0.0) or 1.0, np.array([1]))


FINE = {name: seen(0.0, 9.0) for name in ("image", "r0", "c1", "logits")}


def test_a_net_that_fits_keeps_no_tensor_in_fp32():
    audit = audit_fp16_range(model().graph, FINE)
    assert audit.audited
    assert (audit.tensors, audit.weights, audit.keep) == ((), (), frozenset())


def test_without_histograms_nothing_was_audited():
    assert not audit_fp16_range(model().graph, None).audited


@pytest.mark.parametrize("extreme", [(0.0, 1e5), (-1e5, 0.0), (0.0, LARGEST / MARGIN * 1.01), (0.0, 1e-5)])
def test_a_tensor_outside_the_range_is_named_with_all_that_holds_its_values(extreme):
    audit = audit_fp16_range(model().graph, {**FINE, "r0": seen(*extreme)})
    assert audit.tensors == ("r0",)
    # c0 is what the ReLU reads, p0 its pool.
    assert audit.keep == {"c0", "r0", "p0"}


def test_half_of_the_largest_number_fits_and_so_does_a_tensor_of_zeros():
    audit = audit_fp16_range(model().graph, {**FINE, "r0": seen(0.0, LARGEST / MARGIN), "c1": seen(0.0, 0.0)})
    assert audit.keep == frozenset()


@pytest.mark.parametrize("factor", [7e4, -7e4, 1e-6])
def test_weights_outside_the_range_are_named(factor):
    audit = audit_fp16_range(model(w1=np.full((4, 4, 1, 1), factor, np.float32)).graph, None)
    assert audit.weights == ("w1",)
    assert audit.keep == {"w1"}


def test_weights_of_zero_fit():
    assert audit_fp16_range(model(w1=np.zeros((4, 4, 1, 1), np.float32)).graph, None).weights == ()


def test_the_audit_follows_values_through_qdq():
    graph = model(w1=np.full((4, 4, 1, 1), 7e4, np.float32))
    emit_tensorrt(graph, {"r0": Range(0, 1e6)}, ["c1"])
    audit = audit_fp16_range(graph.graph, {**FINE, "r0": seen(0.0, 1e6)})
    assert audit.tensors == ("r0",)
    assert audit.weights == ("c1.weight/DequantizeLinear",)
    assert audit.keep == {"c0", "r0", "p0", "p0/DequantizeLinear", "c1.weight/DequantizeLinear"}


def test_dequantised_weights_are_looked_at_with_their_zero_point():
    stored = make_node("DequantizeLinear", "integers scale zero", "w1")
    integers = np.full((4, 4, 1, 1), 200, np.uint8)
    found = {}
    for zero in (0, 190):
        graph = model([stored], integers=integers, scale=np.float32(1e3), zero=np.uint8(zero)).graph
        found[zero] = audit_fp16_range(graph, None).weights
    assert found == {0: ("w1",), 190: ()}
