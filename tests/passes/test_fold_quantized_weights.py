"""Weights that a graph quantises itself become the integers it would make of them."""

import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.fold_quantized_weights import store_weights
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
    model, changed = store_weights(model)
    assert changed
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "Conv"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found = run(model)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])
    assert store_weights(model)[1] is False


def test_the_type_may_be_said_by_an_attribute():
    weights = np.full(SHAPE, -1, np.float32)
    model, changed = store_weights(make(weights, np.array(0.5, np.float32), output_dtype=TensorProto.INT8))
    assert changed
    stored = model.graph.node(0).inputs[0]
    np.testing.assert_array_equal(constant_of(stored), np.full(SHAPE, -2, np.int8))


SCALE = np.array(0.5, np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"zero_point": np.array(0, np.int16)},
        {"scale": np.full((4, 1, 2, 2), 0.5, np.float32), "axis": 1, "block_size": 3},
        {"weights": np.ones(SHAPE, np.float16), "scale": SCALE.astype(np.float16)},
        {"zero_point": np.array(0, np.int8), "outputs": ("q",)},
    ],
    ids=["16 bits", "blocks", "float16", "an output"],
)
def test_what_it_does_not_know_it_leaves(options, caplog):
    model = make(**{"weights": np.ones(SHAPE, np.float32), "scale": SCALE, **options})
    with caplog.at_level(logging.DEBUG, "fcn_deploy"):
        model, changed = store_weights(model)
    assert not changed
    assert "store_weights: no QuantizeLinear reads float32 constants" in caplog.text
