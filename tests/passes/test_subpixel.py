"""Transposed convolutions of given names as convolutions: the same sums, and names that calibration knows."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.rewrite import Declined
from fcn_deploy.passes.subpixel import ConvolveSubpixels


def model_of(weights, bias, after=(), **attributes):
    nodes = [helper.make_node("ConvTranspose", ["image", "w", "b"], ["up_out"], "up", **attributes), *after]
    constants = {"w": weights, "b": bias, "lowest": np.float32(0), "highest": np.float32(0.5), "minus": np.float32(-1)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", len(weights), "h", "w_"])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["n", None, None, None])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def weights_and_bias(seed, channels, per_group, kernel, groups=1):
    random = np.random.default_rng(seed)
    weights = random.normal(size=(channels, per_group, *kernel)).astype(np.float32)
    return weights, random.normal(size=per_group * groups).astype(np.float32)


def run(data, image):
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


# Named as an export names it, after the layer.
RELU = [helper.make_node("Relu", ["up_out"], ["up/Relu"], "up/Relu")]
RELU6 = [helper.make_node("Clip", ["up_out", "lowest", "highest"], ["rectified"], "relu6")]
TWICE = [*RELU, helper.make_node("Clip", ["up/Relu", "lowest", "highest"], ["rectified"], "relu6")]
TANH = [helper.make_node("Clip", ["up_out", "minus", "highest"], ["limited"], "hardtanh")]


@settings(max_examples=80, deadline=None)
@given(
    stride=st.integers(2, 4),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    extra=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    groups=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    after=st.sampled_from([[], RELU, RELU6, TWICE, TANH]),
)
def test_the_convolution_gives_the_same_at_every_size(stride, kernel, pads, extra, groups, size, after):
    data = model_of(
        *weights_and_bias(0, 4, 3, kernel, groups),
        after,
        strides=[stride, stride],
        pads=pads,
        output_padding=extra,
        group=groups,
    )
    image = np.random.default_rng(1).normal(size=(2, 4, *size)).astype(np.float32)
    for axis in (0, 1):
        assume(stride * (size[axis] - 1) + kernel[axis] + extra[axis] - pads[axis] - pads[axis + 2] > 0)
    result = ConvolveSubpixels(["up"])(parse(data))
    if result.declined:
        assert result.declined == (Declined("it cuts off more than a kernel", "up"),)
        assert not result.modified
        return
    wanted, found = run(data, image), run(serialize(result.model), image)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=ConvolveSubpixels.tolerance * max(1.0, np.abs(wanted).max()), rtol=0)


@pytest.mark.parametrize("after", [RELU, RELU6, TWICE])
def test_a_rectifier_becomes_part_of_the_convolution_and_what_it_made_keeps_its_name(after):
    data = model_of(*weights_and_bias(0, 4, 3, (2, 2)), after, strides=[2, 2])
    graph = ConvolveSubpixels(["up"])(parse(data)).model.graph
    assert [node.op_type for node in graph] == ["Conv", *(node.op_type for node in after), "DepthToSpace"]
    assert next(iter(graph)).name == "up"
    assert graph.outputs[0].name == after[-1].output[0]
    assert graph.outputs[0].producer().op_type == "DepthToSpace"
    names = [value.name for node in graph for value in node.outputs]
    assert len(set(names)) == len(names)


def test_a_rectifier_that_is_not_the_only_reader_stays():
    after = [*RELU, helper.make_node("Add", ["up_out", "up/Relu"], ["sum"], "add")]
    graph = ConvolveSubpixels(["up"])(
        parse(model_of(*weights_and_bias(0, 4, 3, (2, 2)), after, strides=[2, 2]))
    ).model.graph
    assert [node.op_type for node in graph] == ["Conv", "DepthToSpace", "Relu", "Add"]


def test_a_limit_below_zero_is_no_rectifier_and_stays():
    graph = ConvolveSubpixels(["up"])(
        parse(model_of(*weights_and_bias(0, 4, 3, (2, 2)), TANH, strides=[2, 2]))
    ).model.graph
    assert [node.op_type for node in graph] == ["Conv", "DepthToSpace", "Clip"]
    assert graph.outputs[0].producer().inputs[0].name == "up_out"


def test_layers_of_other_names_stay():
    result = ConvolveSubpixels(["other"])(parse(model_of(*weights_and_bias(0, 4, 3, (2, 2)), strides=[2, 2])))
    assert not result.modified
    assert [node.op_type for node in result.model.graph] == ["ConvTranspose"]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"strides": [1, 1]}, "its strides are (1, 1), not two equal ones of 2 or more"),
        ({"strides": [2, 3]}, "its strides are (2, 3), not two equal ones of 2 or more"),
        ({"strides": [2, 2], "dilations": [2, 2]}, "it is dilated"),
        ({"strides": [2, 2], "auto_pad": "SAME_UPPER"}, "its padding depends on the size"),
    ],
)
def test_what_is_no_such_convolution_is_declined(attributes, reason):
    result = ConvolveSubpixels(["up"])(parse(model_of(*weights_and_bias(0, 4, 3, (3, 3)), **attributes)))
    assert result.declined == (Declined(reason, "up"),)
    assert not result.modified
