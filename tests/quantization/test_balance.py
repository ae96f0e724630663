"""Channels are balanced where that changes nothing of what a net computes."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import serialize
from fcn_deploy.quantization.balance import balance, balanceable, channel_scales
from tests.support.quantizable_graphs import make_node, model_of, residual, weights


def chain(activation="Relu", between=(), **constants):
    """Two convolutions with an activation between them, and what else is to stand behind it."""
    slope = " slope" if activation == "PRelu" else ""
    nodes = [
        make_node("Conv", "image w0 b0", "c0"),
        make_node(activation, f"c0{slope}", "r0"),
        *between,
        make_node("Conv", f"{between[-1].output[0] if between else 'r0'} w1", "logits"),
    ]
    known = {"w0": weights(0), "b0": np.arange(4, dtype=np.float32), "w1": weights(1), **constants}
    if activation == "PRelu":
        known["slope"] = np.full((4, 1, 1), 0.2, np.float32)
    return model_of(nodes, **known)


def run(model, image):
    session = ort.InferenceSession(serialize(model), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def names(model):
    return {str(each.value.name): [reader.name for reader in each.readers] for each in balanceable(model.graph)}


POOL = make_node("MaxPool", "r0", "p0", kernel_shape=[2, 2], strides=[1, 1])


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (lambda: chain(), {"r0": ["logits"]}),
        (lambda: chain("PRelu"), {"r0": ["logits"]}),
        (lambda: chain(between=[POOL]), {"r0": ["logits"]}),
        (lambda: chain("Sigmoid"), {}),
        (lambda: chain(between=[make_node("Neg", "r0", "n0")]), {}),
        (lambda: residual(identity=True), {"r1": ["c2"], "block": ["c4"]}),
        (lambda: residual(identity=False), {"r0": ["past", "c1"], "r1": ["c2"], "block": ["c4"]}),
    ],
)
def test_a_tensor_between_convolutions_alone_can_be_balanced(made, found):
    # The sum of a block is no convolution's; the skip reads the first tensor, too.
    assert names(made()) == {name: readers for name, readers in found.items() if name != "block"}


def test_weights_that_two_layers_share_stay_what_they_are():
    nodes = [
        make_node("Conv", "image w0", "c0"),
        make_node("Relu", "c0", "r0"),
        make_node("Conv", "r0 w0", "logits"),
    ]
    assert names(model_of(nodes, w0=weights(0))) == {}


@pytest.mark.parametrize("activation", ["Relu", "PRelu"])
@pytest.mark.parametrize("between", [[], [POOL]])
@given(scales=hnp.arrays(np.float64, 4, elements=st.floats(0.1, 10)))
@settings(max_examples=20, deadline=None)
def test_the_net_computes_what_it_did(activation, between, scales):
    image = np.random.default_rng(0).normal(size=(2, 4, 9, 7)).astype(np.float32)
    model = chain(activation, between)
    expected = run(model, image)
    balance(model.graph, {"r0": scales})
    np.testing.assert_allclose(run(model, image), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_depthwise_and_transposed_readers_take_scales():
    depthwise = np.random.default_rng(2).normal(size=(4, 1, 3, 3)).astype(np.float32)
    nodes = [
        make_node("Conv", "image w0", "c0"),
        make_node("Relu", "c0", "r0"),
        make_node("Conv", "r0 wd", "d0", group=4, pads=[1, 1, 1, 1]),
        make_node("ConvTranspose", "r0 wt", "t0"),
        make_node("Add", "d0 t0", "logits"),
    ]
    model = model_of(nodes, w0=weights(0), wd=depthwise, wt=weights(3))
    assert names(model) == {"r0": ["d0", "t0"]}
    image = np.random.default_rng(0).normal(size=(1, 4, 9, 7)).astype(np.float32)
    expected = run(model, image)
    balance(model.graph, {"r0": np.array([0.3, 1.0, 2.0, 4.0])})
    np.testing.assert_allclose(run(model, image), expected, rtol=1e-4, atol=1e-4)


def test_strong_channels_are_divided_by_more_and_dead_ones_by_least():
    (scales,) = channel_scales({"r0": np.array([0.0, 1.0, 2.0, 4.0])}).values()
    assert scales[0] == scales.min()
    assert (np.diff(scales) > 0).all()
    assert scales[3] / scales[1] == pytest.approx(4**0.4)
    assert (scales >= 0.25).all()
    assert (scales <= 4).all()
    (scales,) = channel_scales({"r0": np.zeros(3)}).values()
    np.testing.assert_array_equal(scales, np.ones(3))


@pytest.mark.parametrize("scales", [{"c0": np.ones(4)}, {"r0": np.ones(3)}, {"nothing": np.ones(4)}])
def test_scales_of_another_net_are_refused(scales):
    with pytest.raises(InputError, match=r"bad scales of tensor .*fix: calibrate this model"):
        balance(chain().graph, scales)
