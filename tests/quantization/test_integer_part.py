"""What ONNX Runtime runs on integers between quantised convolutions, and that nothing is converted back and forth."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.graph.model import serialize
from fcn_deploy.quantization.cpu_scheme import CpuScheme
from fcn_deploy.quantization.integer_part import integer_part
from fcn_deploy.quantization.onnxruntime import emit_onnxruntime
from fcn_deploy.quantization.qdq import range_of
from fcn_deploy.quantization.tensors import observed_tensors
from tests.support.quantizable_graphs import make_node, model_of, outputs_in_float, weights

LAYERS = ["c1", "c2", "c4"]
CONVERTING = ("QuantizeLinear", "DequantizeLinear")


def between(*nodes, last="m", channels=4, **constants):
    """A first layer, two layers that read it, some nodes that make `m` of them, a layer, and the scores."""
    read = {name for node in nodes for name in node.input}
    rectified = [make_node("Conv", "r0 w1", "c1"), make_node("Relu", "c1", "r1")] if read & {"c1", "r1"} else []
    wide = np.concatenate([weights(4)] * (channels // 4), axis=1) if channels > 4 else weights(4)[:, :channels]
    return model_of(
        [
            make_node("Conv", "image w0", "c0"),
            make_node("Relu", "c0", "r0"),
            *rectified,
            make_node("Conv", "r0 w2", "c2"),
            *nodes,
            make_node("Conv", f"{last} w4", "c4"),
            make_node("Conv", "c4 w5", "logits"),
        ],
        **{f"w{index}": weights(index) for index in (0, 1, 2, 5)},
        w4=wide,
        **constants,
    )


def ranges_of(model, image):
    """Ranges of all tensors that calibration would observe, from one image."""
    names = [str(value.name) for value in observed_tensors(model.graph)]
    copy = model.clone()
    for node in copy.graph:
        if node.outputs[0].name in names and not node.outputs[0].is_graph_output():
            copy.graph.outputs.append(node.outputs[0])
    found = dict(zip([v.name for v in copy.graph.outputs], outputs_in_float(copy, image), strict=True))
    found["image"] = image
    return {name: Range(min(0.0, float(found[name].min())), max(0.0, float(found[name].max()))) for name in names}


def emitted(model, tmp_path, layers=None, size=(16, 16)):
    """The operators that ONNX Runtime runs, and the error of the logits as a share of their range."""
    image = np.random.default_rng(1).normal(size=(2, 4, *size)).astype(np.float32)
    wanted = outputs_in_float(model, image)[0]
    layers = layers or [node.name for node in model.graph if node.name in LAYERS]
    quantized = emit_onnxruntime(model.clone(), ranges_of(model, image), layers, CpuScheme(127, "nearest"))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = ort.InferenceSession(serialize(quantized), options, providers=["CPUExecutionProvider"])
    error = np.abs(session.run(None, {"image": image})[0] - wanted).max() / np.ptp(wanted)
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node), error


STEP = {"scales": np.array([1, 1, 2, 2], np.float32)}
JOINING = {
    "a sum": ([make_node("Add", "r1 c2", "m")], {}, "QLinearAdd"),
    "a product": ([make_node("Mul", "r1 c2", "m")], {}, "QLinearMul"),
    "a leaky rectifier": ([make_node("LeakyRelu", "c2", "m", alpha=0.1)], {}, "QLinearLeakyRelu"),
    "average pooling": (
        [make_node("AveragePool", "c2", "m", kernel_shape=[2, 2], strides=[2, 2])],
        {},
        "QLinearAveragePool",
    ),
    "a global mean": ([make_node("GlobalAveragePool", "c2", "m")], {}, "QLinearGlobalAveragePool"),
    "max pooling": ([make_node("MaxPool", "c2", "m", kernel_shape=[2, 2], strides=[2, 2])], {}, "NhwcMaxPool"),
    "nearest neighbours": (
        [make_node("Resize", "c2  scales", "m", mode="nearest", nearest_mode="floor")],
        STEP,
        "Resize",
    ),
    "a crop": (
        [make_node("Slice", "c2 starts ends axes", "m")],
        {"starts": np.array([1]), "ends": np.array([9]), "axes": np.array([2])},
        "Slice",
    ),
}


def empty_inputs(nodes):
    for node in nodes:
        if node.op_type == "Resize":
            del node.input[:]
            node.input.extend(["c2", "", "scales"])
    return nodes


@pytest.mark.parametrize("case", JOINING)
def test_what_stands_between_integer_layers_runs_on_integers(case, tmp_path):
    nodes, constants, kernel = JOINING[case]
    operators, error = emitted(between(*empty_inputs(nodes), **constants), tmp_path)
    assert operators[kernel] == 1
    assert operators["QLinearConv"] == (3 if case in ("a sum", "a product") else 2)
    # One way in, from the first layer, and one way out, to the scores.
    assert [operators[operator] for operator in CONVERTING] == [1, 1]
    assert error <= 0.05


def test_a_concatenation_of_integers_and_of_a_float_map_runs_on_integers(tmp_path):
    operators, error = emitted(between(make_node("Concat", "r0 r1 c2", "m", axis=1), channels=12), tmp_path)
    assert operators["QLinearConcat"] == 1
    assert operators["Concat"] == 0
    assert [operators[operator] for operator in CONVERTING] == [1, 1]
    assert error <= 0.05


def test_attention_over_channels_costs_one_small_quantiser(tmp_path):
    nodes = [
        make_node("GlobalAveragePool", "c2", "mean"),
        make_node("Sigmoid", "mean", "gate"),
        make_node("Mul", "c2 gate", "m"),
    ]
    operators, error = emitted(between(*nodes), tmp_path)
    assert operators["QLinearMul"] == 1
    assert operators["Mul"] == 0
    assert error <= 0.05


def test_what_only_a_concatenation_reads_is_rounded_once_by_the_scale_of_the_whole():
    model = between(make_node("Concat", "r1 c2", "m", axis=1), channels=8)
    ranges = {"r0": Range(0, 1), "r1": Range(0, 2), "c2": Range(-1, 1), "m": Range(-1, 3), "c4": Range(-1, 1)}
    params = _params(model, ranges)
    assert params["c2"].scale == params["m"].scale == np.float32(4 / 255)
    # A rectified map keeps its own: its zero is the lowest integer, which makes the rectifier part of the convolution.
    assert params["r1"].scale == np.float32(2 / 255)
    rectified = _params(model, {**ranges, "m": Range(0, 3)})
    assert rectified["r1"].scale == rectified["m"].scale == np.float32(3 / 255)


def test_what_others_read_too_keeps_its_own_scale():
    nodes = [
        make_node("Concat", "c1 c2", "whole", axis=1),
        make_node("Conv", "whole w3", "c3"),
        make_node("Add", "c2 c3", "m"),
    ]
    model = between(*nodes, w3=np.concatenate([weights(3)] * 2, axis=1))
    ranges = {name: Range(-1, 1) for name in ("r0", "r1", "c1", "c2", "c3", "c4", "m")}
    params = _params(model, {**ranges, "whole": Range(-3, 3)}, ["c1", "c2", "c3", "c4"])
    assert params["c2"].scale == params["c3"].scale == np.float32(2 / 255)
    assert params["whole"].scale == np.float32(6 / 255)


def test_what_is_moved_keeps_the_scale_of_what_moves():
    pool = make_node("MaxPool", "r1", "p", kernel_shape=[2, 2], strides=[2, 2])
    model = between(pool, make_node("Slice", "p s e a", "m"), s=np.array([0]), e=np.array([4]), a=np.array([2]))
    params = _params(model, {"r0": Range(0, 1), "r1": Range(0, 2), "c2": Range(0, 1), "c4": Range(0, 1)})
    assert params["r1"].scale == params["p"].scale == params["m"].scale == np.float32(2 / 255)


def _params(model, ranges, layers=LAYERS):
    convs = [node for node in model.graph if node.name in layers]
    scheme = CpuScheme(127)
    part = integer_part(
        model.graph, convs, lambda value: scheme.activations.of_range(range_of(value, ranges)), lambda value: True
    )
    return {value.name: params for value, params in part.params.items()}


STAYING = {
    "no integers come in": [
        make_node("Add", "image image", "s"),
        make_node("Conv", "s w1", "x"),
        make_node("Add", "r1 c2", "m"),
    ],
    "a constant": [make_node("Add", "c2 constant", "m")],
    "linear interpolation": [make_node("Resize", "c2  scales", "m", mode="linear")],
    "a sigmoid": [make_node("Sigmoid", "c2", "m")],
    "a sum over another axis": [make_node("Concat", "r1 c2", "m", axis=2)],
}


@pytest.mark.parametrize("case", STAYING)
def test_other_nodes_stay_float(case):
    nodes = empty_inputs(STAYING[case])
    model = between(*nodes, constant=np.ones((1, 4, 1, 1), np.float32), **STEP)
    convs = [node for node in model.graph if node.name in LAYERS]
    scheme = CpuScheme(127)
    part = integer_part(model.graph, convs, lambda value: scheme.activations.of_range(Range(-1, 1)), lambda value: True)
    names = {node.name for node in part.nodes}
    assert names - {"m", "c1", "r1"} == {"c2", "c4"}
    assert ("m" in names) == (case == "no integers come in")


def test_what_is_computed_from_sizes_needs_no_range(tmp_path):
    nodes = [
        make_node("Shape", "image", "sizes"),
        make_node("ConstantOfShape", "sizes", "ones"),
        make_node("Sigmoid", "ones", "gate"),
        make_node("Mul", "c2 gate", "half"),
        make_node("Concat", "c2 ones half", "m", axis=1),
    ]
    model = between(*nodes, channels=12)
    for name in ("sizes", "ones", "gate"):  # as an adopted model has it
        value = next(output for node in model.graph for output in node.outputs if output.name == name)
        value.type = ir.TensorType(ir.DataType.INT64 if name == "sizes" else ir.DataType.FLOAT)
    operators, error = emitted(model, tmp_path)
    assert operators["QLinearConv"] == 2
    assert error <= 0.05


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("pads", [[0] * 4, [1] * 4])
@pytest.mark.parametrize("includes", [0, 1])
@pytest.mark.parametrize("between_integers", [False, True])
def test_average_pooling_of_incomplete_windows_is_right(size, pads, includes, between_integers, tmp_path):
    attributes = {"kernel_shape": [size] * 2, "strides": [2, 2], "pads": pads, "ceil_mode": 1}
    pool = make_node("AveragePool", "c2", "p", count_include_pad=includes, **attributes)
    if between_integers:  # it reads what exists as integers only
        nodes = [make_node("Conv", "c2 w3", "c3"), make_node("MaxPool", "c3", "q", **attributes)]
        model = between(pool, *nodes, make_node("Add", "p q", "m"), w3=weights(3))
    else:
        model = between(pool, make_node("Identity", "p", "m"))
    _, error = emitted(model, tmp_path, ["c2", "c3", "c4"] if between_integers else None, (15, 8 + size))
    assert error <= 0.05


OPERATORS = st.sampled_from(["Add", "Mul", "Concat", "LeakyRelu", "MaxPool", "Sigmoid", "Conv", "Relu"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(OPERATORS, st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6), st.integers(0, 99))
def test_random_nets_are_right_and_convert_no_more_often_than_they_have_layers(tmp_path_factory, steps, seed):
    made, nodes, constants = ["r1", "c2"], [], {}
    rectified = {"r1": 1}
    for index, (operator, first, second) in enumerate(steps):
        name, a, b = f"x{index}", made[first % len(made)], made[second % len(made)]
        if operator == "Relu":
            rectified[name] = rectified.get(a, 0) + 1
            if rectified[name] > 2:  # ONNX Runtime does not make three a part of a convolution; no net has them
                continue
        if operator == "Concat":
            nodes.append(make_node("Concat", f"{a} {b}", f"{name}_both", axis=1))
            constants[f"{name}_w"] = np.concatenate([weights(seed + index), weights(seed)], axis=1)
            nodes.append(make_node("Conv", f"{name}_both {name}_w", name))
        elif operator == "Conv":
            constants[f"{name}_w"] = weights(seed + index)
            nodes.append(make_node("Conv", f"{a} {name}_w", name))
        elif operator in ("Add", "Mul"):
            nodes.append(make_node(operator, f"{a} {b}", name))
        else:
            pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} if operator == "MaxPool" else {}
            nodes.append(make_node(operator, a, name, **pool))
        made.append(name)
    # Exported nets have no layer that nothing reads.
    model = RemoveUnusedNodesPass()(between(*nodes, last=made[-1], **constants)).model
    layers = [node.name for node in model.graph if node.op_type == "Conv" and node.name not in ("c0", "logits")]
    operators, error = emitted(model, tmp_path_factory.mktemp("net"), layers)
    assert error <= 0.5
    assert operators["QLinearConv"] == len(layers)
    floats = sum(
        operators[each] for each in ("Conv", "FusedConv", "Sigmoid", "Relu", "Add", "Mul", "Concat", "LeakyRelu")
    )
    assert sum(operators[operator] for operator in CONVERTING) <= 2 * floats + 2
