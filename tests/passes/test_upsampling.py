"""Transposed convolutions as interpolations and convolutions: the same sums, at borders and at every size."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.rewrite import Declined
from fcn_deploy.passes.upsampling import RewriteUpsampling


def model_of(weights, bias=None, **attributes):
    constants = {"w": weights} if bias is None else {"w": weights, "b": bias}
    graph = helper.make_graph(
        [helper.make_node("ConvTranspose", ["image", *constants], ["logits"], "upscore", **attributes)],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", len(weights), "h", "w_"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", None, None, None])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def run(data, image):
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def rewritten(data):
    result = RewriteUpsampling()(parse(data))
    return serialize(result.model), result.modified, [node.op_type for node in result.model.graph]


def check(data, channels, height, width, batch=1):
    image = np.random.default_rng(0).normal(size=(batch, channels, height, width)).astype(np.float32)
    wanted = run(data, image)
    found = run(rewritten(data)[0], image)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=RewriteUpsampling.tolerance * max(1.0, np.abs(wanted).max()), rtol=0)


def bilinear(stride, kernel=None):
    kernel = kernel or 2 * stride - stride % 2
    taps = 1 - np.abs(np.arange(kernel) - (kernel - 1) / 2) / stride
    return np.outer(taps, taps).astype(np.float32)


def diagonal(channels, kernel):
    weights = np.zeros((channels, channels, *kernel.shape), np.float32)
    weights[np.arange(channels), np.arange(channels)] = kernel
    return weights


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=150, deadline=None)
@given(
    stride=st.integers(4, 6),
    kernel=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    groups=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 5)] * 4),
    extra=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    biased=st.booleans(),
    size=SIZES,
    batch=st.integers(1, 2),
)
def test_any_transposed_convolution_gives_the_same_sums(
    stride, kernel, groups, channels, pads, extra, biased, size, batch
):
    assume(max(extra) < stride)
    pairs = zip(size, kernel, (pads[0] + pads[2], pads[1] + pads[3]), extra, strict=True)
    assume(all(stride * (n - 1) + k - cut + more > 0 for n, k, cut, more in pairs))
    random = np.random.default_rng(1)
    weights = random.normal(size=(groups * channels[0], channels[1], *kernel)).astype(np.float32)
    bias = random.normal(size=groups * channels[1]).astype(np.float32) if biased else None
    data = model_of(weights, bias, group=groups, strides=[stride, stride], pads=list(pads), output_padding=list(extra))
    check(data, len(weights), *size, batch)


@settings(max_examples=80, deadline=None)
@given(
    stride=st.integers(2, 9),
    channels=st.integers(1, 4),
    grouped=st.booleans(),
    biased=st.booleans(),
    pads=st.tuples(*[st.integers(0, 12)] * 4),
    size=SIZES,
)
def test_bilinear_kernels_become_interpolations(stride, channels, grouped, biased, pads, size):
    kernel = bilinear(stride)
    cuts = zip(size, (pads[0] + pads[2], pads[1] + pads[3]), strict=True)
    assume(all(stride * (n - 1) + len(kernel) - cut > 0 for n, cut in cuts))
    weights = np.broadcast_to(kernel, (channels, 1, *kernel.shape)).copy() if grouped else diagonal(channels, kernel)
    bias = np.arange(channels, dtype=np.float32) if biased else None
    groups = channels if grouped else 1
    data = model_of(weights, bias, group=groups, strides=[stride, stride], pads=list(pads))
    _, changed, operators = rewritten(data)
    assert changed
    assert "Resize" in operators
    assert "ConvTranspose" not in operators
    check(data, channels, *size)


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "learned"),
    [
        *[(kernel, kernel // 2, kernel // 4, learned) for kernel in (16, 32, 64) for learned in (False, True)],
        *[(4, 2, 1, False), (4, 2, 0, False), (16, 8, 0, False), (16, 8, 0, True)],
    ],
)
def test_the_layers_of_fcns(kernel, stride, pad, learned):
    weights = diagonal(5, bilinear(stride, kernel))
    if learned:
        weights += np.random.default_rng(0).normal(scale=0.01, size=weights.shape).astype(np.float32)
    data = model_of(weights, np.ones(5, np.float32), strides=[stride, stride], pads=[pad] * 4)
    _, changed, operators = rewritten(data)
    assert changed
    assert ("Resize" in operators) is not learned
    check(data, 5, 6, 7)


@settings(max_examples=40, deadline=None)
@given(
    stride=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    channels=st.integers(2, 4),
    biased=st.booleans(),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    size=SIZES,
)
def test_weights_that_are_zero_between_channels_make_groups(stride, channels, biased, pads, size):
    assume(all(step * (n - 1) + 5 - before - behind > 0 for step, n, before, behind in zip(
        stride, size, pads[:2], pads[2:], strict=True)))  # fmt: skip
    weights = np.zeros((channels, channels, 5, 5), np.float32)
    weights[range(channels), range(channels)] = np.random.default_rng(0).normal(size=(channels, 5, 5))
    bias = np.arange(channels, dtype=np.float32) if biased else None
    data = model_of(weights, bias, strides=list(stride), pads=list(pads))
    result = RewriteUpsampling()(parse(data))
    assert result.modified
    assert result.declined == ()
    (layer,) = (node for node in result.model.graph if node.name == "upscore")
    assert layer.attributes.get_int("group") == channels
    assert (layer.op_type == "Conv") is (stride[0] == stride[1] >= 4)
    check(data, channels, *size)


def test_interpolation_strides_may_differ():
    taps = [1 - np.abs(np.arange(2 * stride) - stride + 0.5) / stride for stride in (2, 4)]
    data = model_of(diagonal(3, np.outer(*taps).astype(np.float32)), strides=[2, 4], pads=[1, 2, 1, 2])
    assert "Resize" in rewritten(data)[2]
    check(data, 3, 5, 6)


def test_a_layer_that_multiplies_keeps_its_name():
    weights = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    model = RewriteUpsampling()(parse(model_of(weights, strides=[4, 4], pads=[0, 0, 0, 0]))).model
    assert [(node.name, node.op_type) for node in model.graph] == [
        ("upscore", "Conv"),
        ("upscore/DepthToSpace", "DepthToSpace"),
    ]


@pytest.mark.parametrize(
    ("shape", "attributes", "reason"),
    [
        ((2, 3, 3, 3), {"strides": [1, 1]}, "its strides are (1, 1), not two equal ones of 4 or more"),
        ((2, 3, 4, 4), {"strides": [2, 2]}, "its strides are (2, 2), not two equal ones of 4 or more"),
        ((2, 3, 5, 5), {"strides": [4, 5]}, "its strides are (4, 5), not two equal ones of 4 or more"),
        ((2, 3, 5, 5), {"strides": [4, 4], "pads": [5] * 4}, "it cuts off more than a kernel"),
        ((2, 3, 5, 5), {"strides": [4, 4], "dilations": [2, 2]}, "it is dilated"),
        ((2, 3, 5, 5), {"strides": [4, 4], "auto_pad": "SAME_UPPER"}, "its padding depends on the size"),
        ((2, 3, 5), {"strides": [4]}, "its weights are not constant float32 [in, out, kH, kW]"),
    ],
)
def test_what_no_rewrite_can_express_is_declined(shape, attributes, reason):
    model = parse(model_of(np.ones(shape, np.float32), **attributes))
    before = serialize(model)
    result = RewriteUpsampling()(model)
    assert not result.modified
    assert result.declined == (Declined(reason, "upscore"),)
    assert serialize(model) == before


def test_an_interpolation_past_a_border_of_one_pixel_is_declined():
    data = model_of(bilinear(2)[np.newaxis, np.newaxis], strides=[2, 2], output_padding=[1, 1], group=1)
    model = parse(data)
    assert RewriteUpsampling()(model).modified
    kernel = bilinear(4)
    data = model_of(kernel[np.newaxis, np.newaxis], strides=[4, 4], output_padding=[3, 3])
    result = RewriteUpsampling()(parse(data))
    assert result.declined == (Declined("it gives more than a border of one pixel covers", "upscore"),)
