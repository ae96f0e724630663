"""Layers of a graph: against numbers worked out by hand, and against torch's own count."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.graph.layers import Layer, list_layers, total_macs
from fcn_deploy.graph.model import parse
from fcn_deploy.graph.shape_inference import image_shape
from tests.support.building import build


def _model(nodes, weights, *, dims=("batch", 3, "height", "width"), outputs=None, domains=()):
    arrays = {
        name: np.ones(value, np.float32) if isinstance(value, tuple) else value for name, value in weights.items()
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_empty_tensor_value_info(name) for name in outputs or [nodes[-1].output[0]]],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid(*pair) for pair in (("", 18), *domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _layers(nodes, weights, images=None, **options):
    return list_layers(ir.from_proto(_model(nodes, weights, **options)), images)


def test_a_convolution_worked_out_by_hand():
    conv = helper.make_node("Conv", ["image", "w", "b"], ["out"], name="conv", strides=[2, 2], pads=[1, 1, 1, 1])
    (layer,) = _layers([conv], {"w": (8, 3, 3, 3), "b": (8,)}, ImageShape(2, 9, 16))
    # 2 images of 8 channels of 5 x 8, each a sum over 3 channels of 3 x 3
    assert layer == Layer("conv", "Conv", (8, 3, 3, 3), (2, 8, 5, 8), 8 * 27 + 8, 2 * 8 * 5 * 8 * 27, "fp32")


def test_a_depthwise_convolution_worked_out_by_hand():
    conv = helper.make_node("Conv", ["image", "w"], ["out"], name="conv", group=3)
    (layer,) = _layers([conv], {"w": (3, 1, 5, 5)}, ImageShape(1, 6, 7))
    assert layer == Layer("conv", "Conv", (3, 1, 5, 5), (1, 3, 2, 3), 75, 3 * 2 * 3 * 25, "fp32")


def test_a_deconvolution_worked_out_by_hand():
    deconv = helper.make_node("ConvTranspose", ["image", "w", "b"], ["out"], name="up", strides=[2, 2], group=3)
    (layer,) = _layers([deconv], {"w": (3, 2, 4, 4), "b": (6,)}, ImageShape(1, 5, 7))
    # each of 3 x 5 x 7 elements is spread over 2 channels of 4 x 4
    assert layer == Layer("up", "ConvTranspose", (3, 2, 4, 4), (1, 6, 12, 16), 96 + 6, 3 * 5 * 7 * 32, "fp32")


@pytest.mark.parametrize(
    ("nodes", "weights", "output", "parameters", "macs"),
    [
        ([helper.make_node("MatMul", ["image", "w"], ["y"])], {"w": (7, 4)}, (1, 3, 5, 4), 28, 3 * 5 * 4 * 7),
        ([helper.make_node("MatMul", ["w", "image"], ["y"])], {"w": (4, 5)}, (1, 3, 4, 7), 20, 3 * 4 * 7 * 5),
        ([helper.make_node("MatMul", ["image", "w"], ["y"])], {"w": (7,)}, (1, 3, 5), 7, 3 * 5 * 7),
        (
            [helper.make_node("MatMul", ["image", "w"], ["x"]), helper.make_node("Add", ["b", "x"], ["y"])],
            {"w": (7, 4), "b": (4,)},
            (1, 3, 5, 4),
            28 + 4,
            3 * 5 * 4 * 7,
        ),
        (
            [helper.make_node("MatMul", ["image", "w"], ["x"]), helper.make_node("Add", ["x", "map"], ["y"])],
            {"w": (7, 4), "map": (3, 5, 4)},
            (1, 3, 5, 4),
            28,
            3 * 5 * 4 * 7,
        ),
    ],
    ids=["right", "left", "vector", "bias", "no bias"],
)
def test_a_matrix_product_worked_out_by_hand(nodes, weights, output, parameters, macs):
    (layer,) = _layers(nodes, weights, ImageShape(1, 5, 7))
    assert (layer.output, layer.parameters, layer.macs) == (output, parameters, macs)


@pytest.mark.parametrize(
    ("inputs", "weights", "options", "output"),
    [
        (["flat", "w", "b"], (105, 4), {}, (2, 4)),
        (["flat", "w", "b"], (4, 105), {"transB": 1}, (2, 4)),
        (["w", "flat"], (6, 2), {}, (6, 105)),
        (["w", "flat"], (2, 6), {"transA": 1}, (6, 105)),
    ],
    ids=["right", "right transposed", "left", "left transposed"],
)
def test_a_gemm_worked_out_by_hand(inputs, weights, options, output):
    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("Gemm", inputs, ["y"], **options)]
    (layer,) = _layers(nodes, {"w": weights, "b": (4,)}, ImageShape(2, 5, 7))
    summed = 105 if inputs[0] == "flat" else 2
    assert layer.output == output
    assert layer.macs == output[0] * output[1] * summed
    assert layer.parameters == weights[0] * weights[1] + (4 if "b" in inputs else 0)


@settings(max_examples=40, deadline=None)
@given(
    transposed=st.booleans(),
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 3]),
    channels=st.integers(1, 3),
    bias=st.booleans(),
)
def test_torch_counts_as_many(transposed, batch, size, kernel, stride, padding, dilation, groups, channels, bias):
    # A padding that eats a 1 x 1 map is refused by torch.
    padding = min(padding, *(dilation * (side - 1) // 2 for side in kernel))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": bias}
    module = (nn.ConvTranspose2d if transposed else nn.Conv2d)(3, channels * groups, kernel, **options)
    seen = {}
    module.register_forward_hook(lambda _, inputs, output: seen.update(output=tuple(output.shape)))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(batch, 3, *size))
    node = helper.make_node(
        "ConvTranspose" if transposed else "Conv",
        ["image", "w", "b"][: 2 + bias],
        ["out"],
        strides=[stride] * 2,
        pads=[padding] * 4,
        dilations=[dilation] * 2,
        group=groups,
    )
    weights = {name: tuple(p.shape) for name, p in zip(("w", "b"), module.parameters(), strict=False)}
    (layer,) = _layers([node], weights, ImageShape(batch, *size))
    assert layer.output == seen["output"]
    assert 2 * layer.macs == counter.get_total_flops()
    assert layer.parameters == sum(p.numel() for p in module.parameters())


def test_an_fcn_is_counted_as_torch_counts_it(exported, make_net):
    layers = list_layers(parse(exported("fcn8s").read_bytes()), ImageShape(2, 65, 97))
    net = make_net(8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(2, 3, 65, 97))
    assert [layer.name for layer in layers][:2] == ["conv1_1", "conv1_2"]
    assert len(layers) == 21
    assert 2 * total_macs(layers) == counter.get_total_flops()
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in net.parameters())
    assert layers[-1].output == (2, 5, 72, 104)
    assert {layer.precision for layer in layers} == {"fp32"}


def test_an_int8_engine_has_the_layers_of_its_model_in_other_precisions(exported, ranges_file):
    engine = build(exported("fcn8s"), BuildConfig("int8"), ranges_file("fcn8s"))
    model, quantized = parse(exported("fcn8s").read_bytes()), parse(engine.data)
    images = ImageShape(1, 33, 64)
    assert image_shape(quantized, images) == images
    before, after = list_layers(model, images), list_layers(quantized, images)
    assert {layer.name: layer.precision for layer in after} == engine.sidecar.precision.layers

    def facts(layer):
        return layer.name, layer.op, layer.weights, layer.output, layer.parameters, layer.macs

    assert [facts(layer) for layer in after[:-1]] == [facts(layer) for layer in before[:-1]]
    assert (before[-1].op, after[-1].op) == ("ConvTranspose", "Conv")  # see passes.upsampling


def _quantized(name, values):
    inputs = {
        f"{name}/q": values,
        f"{name}/scale": np.array(0.1, np.float32),
        f"{name}/zero": np.zeros((), values.dtype),
    }
    return helper.make_node("DequantizeLinear", list(inputs), [name]), inputs


Q = helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"])
DQ = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"])
SCALES = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}


def test_integer_weights_that_meet_floats_are_computed_in_floats():
    weights, constants = _quantized("w", np.ones((4, 3, 1, 1), np.int8))
    (layer,) = _layers([weights, helper.make_node("Conv", ["image", "w"], ["y"])], constants)
    assert (layer.precision, layer.parameters) == ("fp32", 12)


def test_float_weights_that_meet_integers_are_computed_in_floats():
    (layer,) = _layers([Q, DQ, helper.make_node("Conv", ["x", "w"], ["y"])], {"w": (4, 3, 1, 1), **SCALES})
    assert layer.precision == "fp32"


def test_weights_that_are_quantised_in_the_graph_are_int8():
    nodes = [
        helper.make_node("QuantizeLinear", ["stored", "s", "signed"], ["w_q"]),
        helper.make_node("DequantizeLinear", ["w_q", "s", "signed"], ["w"]),
        *(Q, DQ, helper.make_node("Conv", ["x", "w"], ["y"])),
    ]
    (layer,) = _layers(nodes, {"stored": (4, 3, 1, 1), "signed": np.array(0, np.int8), **SCALES})
    assert (layer.precision, layer.parameters, layer.weights) == ("int8", 12, (4, 3, 1, 1))


@pytest.mark.parametrize(
    ("weights", "activations", "precision"),
    [
        (TensorProto.INT8, TensorProto.INT8, "int8"),
        (TensorProto.INT8, TensorProto.UINT16, "int16"),
        (TensorProto.INT4, TensorProto.UINT8, "int8"),
        (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FN, "float8e4m3fn"),
        (TensorProto.INT8, TensorProto.FLOAT8E4M3FN, "float8e4m3fn"),
    ],
)
def test_a_layer_computes_in_the_wider_of_its_two_types(weights, activations, precision):
    nodes = [
        helper.make_node("QuantizeLinear", ["stored", "s"], ["w_q"], output_dtype=weights),
        helper.make_node("DequantizeLinear", ["w_q", "s"], ["w"]),
        helper.make_node("QuantizeLinear", ["image", "s"], ["q"], output_dtype=activations),
        helper.make_node("DequantizeLinear", ["q", "s"], ["x"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    model = _model(nodes, {"stored": (4, 3, 1, 1), "s": SCALES["s"]})
    model.opset_import[0].version = 21
    (layer,) = list_layers(ir.from_proto(model), ImageShape(1, 5, 7))
    assert layer.precision == precision


def test_weights_are_seen_through_what_only_moves_them():
    weights, constants = _quantized("stored", np.ones((4, 7), np.int8))
    transpose = helper.make_node("Transpose", ["stored"], ["w"])
    nodes = [weights, transpose, Q, DQ, helper.make_node("MatMul", ["x", "w"], ["y"])]
    (layer,) = _layers(nodes, constants | SCALES, ImageShape(1, 5, 7))
    assert (layer.precision, layer.weights, layer.parameters) == ("int8", (7, 4), 28)


def test_weights_cast_to_half_precision_are_computed_in_it():
    nodes = [
        helper.make_node("Cast", ["stored"], ["w"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    (layer,) = _layers(nodes, {"stored": (4, 3, 1, 1)})
    assert layer.precision == "fp16"


def test_without_images_a_layer_has_weights_and_no_more():
    conv = helper.make_node("Conv", ["image", "w"], ["out"], name="conv")
    (layer,) = _layers([conv], {"w": (8, 3, 3, 3)})
    assert (layer.weights, layer.output, layer.parameters, layer.macs) == ((8, 3, 3, 3), None, 216, None)
    assert total_macs([layer]) is None
    assert total_macs([]) == 0


def test_what_has_no_constant_weights_is_no_layer():
    nodes = [
        helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["image", "turned"], ["square"]),
        helper.make_node("Conv", ["image", "w"], ["y"], domain="somebody"),
    ]
    assert _layers(nodes, {"w": (3, 3, 1, 1)}, ImageShape(1, 5, 7), domains=[("somebody", 1)]) == ()


def test_layers_inside_a_branch_are_listed_with_what_is_known_of_them():
    def branch(name):
        conv = helper.make_node("Conv", ["image", "w"], [name], name=f"{name}_conv")
        return helper.make_graph([conv], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    nodes = [helper.make_node("If", ["flag"], ["out"], then_branch=branch("one"), else_branch=branch("two"))]
    layers = _layers(nodes, {"w": (4, 3, 1, 1), "flag": np.array(True)}, ImageShape(1, 5, 7))
    assert {(layer.name, layer.parameters, layer.macs) for layer in layers} == {
        ("one_conv", 12, None),
        ("two_conv", 12, None),
    }


def test_layers_inside_local_functions_are_listed():
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    opsets = [helper.make_opsetid("", 18)]
    model = _model(
        [helper.make_node("Block", ["image", "k"], ["out"], domain="local")],
        {"k": (4, 3, 1, 1)},
        domains=[("local", 1)],
    )
    model.functions.append(helper.make_function("local", "Block", ["x", "w"], ["y"], [conv], opsets))
    (layer,) = list_layers(ir.from_proto(model), ImageShape(1, 5, 7))
    assert (layer.op, layer.output, layer.macs) == ("Conv", (1, 4, 5, 7), 4 * 5 * 7 * 3)
