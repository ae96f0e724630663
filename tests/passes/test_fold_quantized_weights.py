"""Weights that a graph quantises itself become the integers it would make of them."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.fold_quantized_weights import FoldQuantizedWeights
from fcn_deploy.passes.rewrite import Declined
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

SHAPE = (4, 3, 2, 2)


def make(weights, scale, zero_point=None, *, opset=21, outputs=("w",), **attributes):
    """A QuantizeLinear and a DequantizeLinear of constants in front of a Conv; `q` are the integers."""
    constants = {"stored": weights, "scale": scale, **({} if zero_point is None else {"zero": zero_point})}
    parameters = ["scale", *(["zero"] if zero_point is not None else [])]
    axis = {"axis": attributes["axis"]} if "axis" in attributes else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["stored", *parameters], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", *parameters], ["w"], **axis),
        helper.make_node("Conv", ["image", "w"], ["logits"]),
    ]
    types = {"logits": TensorProto.FLOAT, "w": TensorProto.FLOAT, "q": TensorProto.INT8}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 5, 7])],
        [helper.make_tensor_value_info(name, types[name], ["a", "b", "c", "d"]) for name in ("logits", *outputs)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return parse(model.SerializeToString())


def run(model):
    return OnnxRuntimeBackend(serialize(model), simulate_quantization=True).infer({"image": IMAGE})


IMAGE = np.random.default_rng(0).normal(size=(1, 3, 5, 7)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, 0, 1, -1]), st.sampled_from([None, np.int8, np.uint8]))
def test_the_graph_gives_the_same_to_the_last_bit(seed, axis, dtype):
    random = np.random.default_rng(seed)
    size = () if axis is None else (SHAPE[axis],)
    scale = random.uniform(1e-3, 0.02, size).astype(np.float32)
    # Multiples of half a scale: half of them are ties, and some lie beyond what 8 bits hold.
    along = scale if axis is None else scale.reshape([-1 if i == axis % 4 else 1 for i in range(4)])
    weights = (random.integers(-300, 301, SHAPE) / 2 * along).astype(np.float32)
    zero = None if dtype is None else random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, size, dtype, True)
    model = make(weights, scale, zero, **({} if axis is None else {"axis": axis}))
    wanted = run(model)
    assert FoldQuantizedWeights()(model).modified
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "Conv"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found = run(model)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])
    assert not FoldQuantizedWeights()(model).modified


def test_the_type_may_be_said_by_an_attribute():
    weights = np.full(SHAPE, -1, np.float32)
    result = FoldQuantizedWeights()(make(weights, np.array(0.5, np.float32), output_dtype=TensorProto.INT8))
    assert result.modified
    stored = result.model.graph.node(0).inputs[0]
    np.testing.assert_array_equal(constant_of(stored), np.full(SHAPE, -2, np.int8))


SCALE = np.array(0.5, np.float32)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"zero_point": np.array(0, np.int16)}, "it makes int16, not 8-bit integers"),
        (
            {"scale": np.full((4, 1, 2, 2), 0.5, np.float32), "axis": 1, "block_size": 3},
            "it has a scale for each block",
        ),
        (
            {"weights": np.ones(SHAPE, np.float16), "scale": SCALE.astype(np.float16)},
            "it quantises float16 by a scale of float16, not float32 by float32",
        ),
        ({"zero_point": np.array(0, np.int8), "outputs": ("q",)}, "its integers are an output of the graph"),
    ],
    ids=["16 bits", "blocks", "float16", "an output"],
)
def test_weights_that_it_cannot_fold_are_declined(options, reason):
    model = make(**{"weights": np.ones(SHAPE, np.float32), "scale": SCALE, **options})
    before = serialize(model)
    result = FoldQuantizedWeights()(model)
    assert not result.modified
    assert result.declined == (Declined(reason, "q"),)
    assert serialize(model) == before


def test_scales_that_are_computed_are_declined():
    model = make(np.ones(SHAPE, np.float32), SCALE)
    scale = model.graph.node(0).inputs[1]
    doubled = ir.node("Add", [scale, scale], name="doubled")
    model.graph.insert_before(model.graph.node(0), doubled)
    model.graph.node(1).replace_input_with(1, doubled.outputs[0])
    assert FoldQuantizedWeights()(model).declined == (Declined("its scale or zero point is computed", "q"),)
