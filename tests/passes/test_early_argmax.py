"""Labels found before logits are put in their places: the same labels, at every size."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.early_argmax import EarlyArgmax
from fcn_deploy.passes.image_io import LabelOutput
from fcn_deploy.passes.rewrite import Declined

CLASSES = 5


def model_of(*nodes, classes=CLASSES, channels=3, opset=18, **constants):
    """A graph from `image`, [N, C, H, W], to `logits`; nodes are (operator, inputs, output, attributes)."""
    made = [helper.make_node(kind, inputs, [output], f"n_{output}", **rest) for kind, inputs, output, rest in nodes]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes, "height", "width"])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10).SerializeToString()


def subpixel(block, crop, classes=CLASSES, mode="CRD"):
    """A convolution of phases, put in their places, and cut to a size of its own."""
    weights = np.random.default_rng(0).normal(size=(classes * block * block, 3, 3, 3)).astype(np.float32)
    return model_of(
        ("Conv", ["image", "weights"], "phases", {"pads": [1] * 4}),
        ("DepthToSpace", ["phases"], "placed", {"blocksize": block, "mode": mode}),
        ("Slice", ["placed", "first", "last", "axes"], "once", {}),
        ("Slice", ["once", "begin", "end", "rows"], "logits", {}),
        classes=classes, weights=weights, first=[crop, 0], last=[10**6, -crop or 10**6], axes=[2, 3],
        begin=[0], end=[-crop or 10**6], rows=[2],
    )  # fmt: skip


def labelled(data, *, early):
    model = LabelOutput()(parse(data)).model
    if early:
        assert EarlyArgmax()(model).modified
    return model


def run(model, image):
    return ort.InferenceSession(serialize(model), providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


def check(data, shape):
    # Whole numbers, so that several classes have the same logit and the first has to be taken.
    image = np.random.default_rng(1).integers(-2, 3, shape).astype(np.float32)
    expected, found = (run(labelled(data, early=early), image) for early in (False, True))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def check_declined(data):
    model = LabelOutput()(parse(data)).model
    before = serialize(model)
    result = EarlyArgmax()(model)
    assert not result.modified
    assert result.declined == (Declined("no node before it only moves logits", "labels/ArgMax"),)
    assert serialize(model) == before


@settings(max_examples=40, deadline=None)
@given(
    block=st.integers(1, 5),
    crop=st.integers(0, 2),
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
)
def test_labels_are_those_of_the_logits(block, crop, batch, size):
    check(subpixel(block, crop), (batch, 3, *size))


def test_among_more_than_256_classes_labels_are_int32():
    check(subpixel(2, 1, classes=300), (1, 3, 6, 7))


def test_only_labels_are_put_in_their_places():
    graph = labelled(subpixel(4, 1), early=True).graph
    kinds = [node.op_type for node in graph]
    assert kinds.index("ArgMax") < kinds.index("Transpose") < kinds.index("Slice")
    assert "DepthToSpace" not in kinds
    assert graph.outputs[0].name == "labels"


def test_a_crop_alone_is_passed_too():
    data = model_of(
        ("Slice", ["image", "first", "last", "axes"], "logits", {}),
        classes=3, first=[1, 2], last=[-1, 10**6], axes=[2, 3],
    )  # fmt: skip
    check(data, (2, 3, 7, 9))


def test_for_tensorrt_labels_are_cropped_as_floats():
    def cropped(classes):
        return model_of(
            ("Slice", ["image", "first", "last", "axes"], "logits", {}),
            classes=classes, channels=classes, first=[1, 2], last=[-1, 10**6], axes=[2, 3],
        )  # fmt: skip

    early = EarlyArgmax(crops_only=True, cropped_as=ir.DataType.FLOAT16)
    for classes, kinds, dtype in (
        (3, ["ArgMax", "Cast", "Slice", "Squeeze", "Cast"], np.uint8),
        (300, ["ArgMax", "Cast", "Slice", "Squeeze"], np.int32),  # which FP16 does not hold, and needs no detour
    ):
        image = np.random.default_rng(1).integers(-2, 3, (2, classes, 7, 9)).astype(np.float32)
        plain, rewritten = (LabelOutput()(parse(cropped(classes))).model for _ in range(2))
        assert early(rewritten).modified
        assert [node.op_type for node in rewritten.graph] == kinds
        assert rewritten.graph.outputs[0].name == "labels"
        found = run(rewritten, image)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, run(plain, image))


def test_before_crops_alone():
    model = LabelOutput()(parse(subpixel(2, 1))).model
    assert EarlyArgmax(crops_only=True)(model).modified
    kinds = [node.op_type for node in model.graph]
    assert kinds.index("DepthToSpace") < kinds.index("ArgMax") < kinds.index("Slice")


def test_the_other_mode_of_depth_to_space_stays_where_it_is():
    data = subpixel(2, 1, mode="DCR")
    check(data, (1, 3, 6, 6))
    assert "DepthToSpace" in [node.op_type for node in labelled(data, early=True).graph]


@pytest.mark.parametrize(
    "nodes",
    [
        [("Relu", ["image"], "logits", {})],
        [("Slice", ["image", "one", "three", "one"], "some", {}), ("Concat", ["some", "some"], "logits", {"axis": 1})],
        [("Slice", ["image", "zero", "three", "one"], "logits", {})],
    ],
)
def test_what_does_more_than_move_logits_is_left_alone(nodes):
    check_declined(model_of(*nodes, classes=3, zero=[0], one=[1], three=[3]))


def test_logits_that_something_else_reads_are_put_in_their_places():
    data = model_of(
        ("DepthToSpace", ["image"], "placed", {"blocksize": 2, "mode": "CRD"}),
        ("Relu", ["placed"], "rectified", {}),
        ("Add", ["placed", "rectified"], "logits", {}),
        classes=3, channels=12,
    )  # fmt: skip
    check_declined(data)


def test_a_graph_that_gives_logits_is_left_alone():
    result = EarlyArgmax()(parse(subpixel(2, 0)))
    assert not result.modified
    assert result.declined == (Declined("the output is not the Cast of an ArgMax"),)
