"""The Q/DQ lint: one small graph for each finding, and TensorRT-RTX's own parser refuses it too."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.model import parse
from fcn_deploy.quantization.tensorrt_lint import lint
from tests.support import rtx

FLOAT, HALF, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
SCALES = np.full(4, 0.1, np.float32)
WEIGHTS = np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)
CONSTANTS = {
    "scale": np.float32(0.1),
    "zero": np.int8(0),
    "integers": (10 * WEIGHTS).astype(np.int8),
    "scales": SCALES,
    "zeros": np.zeros(4, np.int8),
    "weights": WEIGHTS,
}


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], f"{output}_node", **attributes)


QUANTIZE = node("QuantizeLinear", "image scale zero", "q")
DEQUANTIZE = node("DequantizeLinear", "q scale zero", "d")
STORED = node("DequantizeLinear", "integers scales zeros", "w", axis=0)
CONV = node("Conv", "d w", "logits")
DYNAMIC = [node("DequantizeLinear", "q s z", "d"), node("Conv", "d weights", "logits")]
POOL = helper.make_node("MaxPool", ["image"], ["p", "indices"], "p_node", kernel_shape=[2, 2], strides=[2, 2])


def model(nodes, *, source=FLOAT, result=FLOAT, output="logits", inner=(), **constants):
    constants = {name: np.asarray(value) for name, value in {**CONSTANTS, **constants}.items()}
    read = {name for node in nodes for name in node.input} - {name for node in nodes for name in node.output}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", source, ["n", 4, "h", "w_"])],
        [helper.make_tensor_value_info(output, result, ["n", 4, "oh", "ow"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in read],
        value_info=[helper.make_tensor_value_info(name, dtype, ["n", 4, "h", "w_"]) for name, dtype in inner],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10).SerializeToString()


def test_explicit_symmetric_quantization_has_no_findings():
    data = model([QUANTIZE, DEQUANTIZE, STORED, CONV])
    assert lint(parse(data)) == ()
    assert rtx.parse(data)[2] == []


def test_a_max_pool_between_q_and_dq_has_no_findings():
    pool = node("MaxPool", "q", "p", kernel_shape=[2, 2])
    dequantize = node("DequantizeLinear", "p scale zero", "d")
    assert lint(parse(model([QUANTIZE, pool, dequantize, STORED, CONV]))) == ()


REFUSED = {
    "an int32 bias": (
        [
            *(QUANTIZE, DEQUANTIZE, STORED),
            node("DequantizeLinear", "bias scales", "b", axis=0),
            node("Conv", "d w b", "logits"),
        ],
        {"bias": np.zeros(4, np.int32)},
        ("DequantizeLinear b_node", "bias", "int32 is dequantised", "QuantizeBias off"),
    ),
    "a zero point": (
        [QUANTIZE, DEQUANTIZE, STORED, CONV],
        {"zero": np.int8(3)},
        ("QuantizeLinear q_node", "zero", "a zero point of 3", "symmetrically"),
    ),
    "a zero point of weights": (
        [QUANTIZE, DEQUANTIZE, STORED, CONV],
        {"zeros": np.array([0, 2, 0, 0], np.int8)},
        ("DequantizeLinear w_node", "zeros", "a zero point of 2", "symmetrically"),
    ),
    "uint8 weights": (
        [QUANTIZE, DEQUANTIZE, STORED, CONV],
        {"integers": np.ones((4, 4, 1, 1), np.uint8), "zeros": np.zeros(4, np.uint8)},
        ("DequantizeLinear w_node", "integers", "Q/DQ of UINT8", "quantise to int8"),
    ),
    "a negative scale": (
        [QUANTIZE, DEQUANTIZE, STORED, CONV],
        {"scales": -SCALES},
        ("DequantizeLinear w_node", "scales", "not positive", "calibrate again"),
    ),
    "a scale of zero": (
        [QUANTIZE, DEQUANTIZE, STORED, CONV],
        {"scale": np.float32(0)},
        ("QuantizeLinear q_node", "scale", "not positive", "calibrate again"),
    ),
    "a scale that is no number": (
        [QUANTIZE, DEQUANTIZE, STORED, CONV],
        {"scale": np.float32(np.nan)},
        ("QuantizeLinear q_node", "scale", "not positive", "calibrate again"),
    ),
    "a transpose of uint8": (
        [
            node("Transpose", "image", "t", perm=[0, 1, 3, 2]),
            node("Cast", "t", "f", to=FLOAT),
            node("Conv", "f weights", "logits"),
        ],
        {"source": UINT8},
        ("Transpose t_node", "image", "Transpose on uint8", "cast it first, then transpose"),
    ),
    "a crop of uint8": (
        [
            node("Slice", "image starts ends", "t"),
            node("Cast", "t", "f", to=FLOAT),
            node("Conv", "f weights", "logits"),
        ],
        {"source": UINT8, "starts": np.array([0]), "ends": np.array([1])},
        ("Slice t_node", "image", "Slice on uint8", "cast it first"),
    ),
    "uint16 out": (
        [node("Conv", "image weights", "c"), node("Cast", "c", "logits", to=TensorProto.UINT16)],
        {"result": TensorProto.UINT16},
        ("Cast logits_node", "logits", "no tensors of UINT16", "use int32"),
    ),
    "inputs of several types": (
        [node("Cast", "image", "h", to=HALF), node("Conv", "h weights", "logits")],
        {"inner": [("h", HALF)]},
        ("Conv logits_node", "logits", "h FLOAT16, weights FLOAT", "cast them to one"),
    ),
    "an operator for integers": (
        [
            QUANTIZE,
            node("QLinearConv", "q scale zero integers scale zero scale zero", "c"),
            node("DequantizeLinear", "c scale zero", "logits"),
        ],
        {},
        ("QLinearConv c_node", "c", "no operator QLinearConv", "around float operators"),
    ),
    "scales from each image": (
        [helper.make_node("DynamicQuantizeLinear", ["image"], ["q", "s", "z"], "q_node"), *DYNAMIC],
        {},
        ("DynamicQuantizeLinear q_node", "q", "no operator DynamicQuantizeLinear", "around float operators"),
    ),
    "max pooling with indices": (
        [POOL, node("Cast", "indices", "logits", to=FLOAT)],
        {},
        ("MaxPool p_node", "indices", "gives no indices", "interpolation or transposed convolution"),
    ),
    "unpooling": (
        [POOL, node("MaxUnpool", "p indices", "logits", kernel_shape=[2, 2])],
        {},
        ("MaxUnpool logits_node", "logits", "no operator MaxUnpool", "build for onnxruntime"),
    ),
}


def test_a_max_pool_whose_indices_nobody_reads_has_no_findings():
    assert lint(parse_unchecked(model([POOL, node("Conv", "p weights", "logits")]))) == ()


@pytest.mark.parametrize("case", REFUSED)
def test_what_tensorrt_refuses_is_found_before_it_does(case):
    nodes, changes, (where, tensor, what, fix) = REFUSED[case]
    data = model(nodes, **changes)
    found = [f for f in lint(parse_unchecked(data)) if (f.node, f.tensor) == (where, tensor)]
    assert len(found) == 1
    assert what in found[0].what
    assert fix in found[0].fix
    assert where in str(found[0])
    assert rtx.parse(data)[2] != []


def parse_unchecked(data):
    """The model without ONNX's own check, which would refuse some of what the lint explains."""
    return ir.from_proto(onnx.load_model_from_string(data))


# TensorRT accepts these and computes something else, or ends the process (a computed scale): its parser cannot confirm.

MISUNDERSTOOD = {
    "uint8 activations": (
        [QUANTIZE, DEQUANTIZE, STORED, CONV],
        {"zero": np.uint8(0)},
        ("QuantizeLinear q_node", "q", "Q/DQ of UINT8"),
    ),
    "no zero point, which is uint8": (
        [node("QuantizeLinear", "image scale", "q"), node("DequantizeLinear", "q scale", "d"), STORED, CONV],
        {},
        ("QuantizeLinear q_node", "q", "Q/DQ of UINT8"),
    ),
    "a scale for each channel": (
        [
            node("QuantizeLinear", "image scales zeros", "q", axis=1),
            node("DequantizeLinear", "q scales zeros", "d", axis=1),
            *(STORED, CONV),
        ],
        {},
        ("QuantizeLinear q_node", "scales", "for each channel of an activation"),
    ),
    "a computed scale": (
        [node("ReduceMax", "image", "scale", keepdims=0), QUANTIZE, DEQUANTIZE, STORED, CONV],
        {},
        ("QuantizeLinear q_node", "scale", "computed from the input"),
    ),
    "Q without DQ": (
        [QUANTIZE, node("Cast", "q", "d", to=FLOAT), STORED, CONV],
        {},
        ("QuantizeLinear q_node", "q", "integers that Cast d_node reads"),
    ),
    "Q as an output": (
        [QUANTIZE],
        {"output": "q", "result": TensorProto.INT8},
        ("QuantizeLinear q_node", "q", "integers that no DequantizeLinear reads"),
    ),
}


@pytest.mark.parametrize("case", MISUNDERSTOOD)
def test_what_tensorrt_misunderstands_is_found(case):
    nodes, changes, (where, tensor, what) = MISUNDERSTOOD[case]
    found = lint(parse_unchecked(model(nodes, **changes)))
    assert any((f.node, f.tensor) == (where, tensor) and what in f.what for f in found)


def test_a_constant_that_is_computed_from_constants_is_constant():
    nodes = [node("Mul", "scale scale", "square"), node("QuantizeLinear", "image square zero", "q")]
    data = model([*nodes, node("DequantizeLinear", "q square zero", "d"), STORED, CONV])
    assert lint(parse(data)) == ()
    assert rtx.parse(data)[2] == []
