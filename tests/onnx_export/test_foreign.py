"""Which tensor of another tool's model is the image, and which are the logits: found, chosen, or refused."""

import re

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import ENGINE_KEY
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.onnx_export.foreign import ForeignImage, read_foreign
from fcn_deploy.onnx_export.foreign_backend import ForeignBackend
from tests.support.foreign_models import net


def read(proto, **options):
    return read_foreign(proto.SerializeToString(), "net.onnx", **options)


def with_input(proto, sizes, dtype=TensorProto.FLOAT):
    """The model with another statement of its input."""
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("input.1", dtype, sizes))
    return proto


def second_input(proto, kept=True):
    """The model with a second input, on which the logits depend or not."""
    proto.graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, [1]))
    first = proto.graph.node[0]
    if kept:
        proto.graph.node.insert(0, helper.make_node("Mul", [first.input[0], "factor"], ["scaled"]))
        first.input[0] = "scaled"
    return proto


@pytest.mark.parametrize(
    ("options", "image"),
    [
        ({}, ForeignImage("input.1", "float32", "nchw", (None, None, None))),
        ({"layout": "nhwc"}, ForeignImage("input.1", "float32", "nhwc", (None, None, None))),
        ({"dtype": "float16"}, ForeignImage("input.1", "float16", "nchw", (None, None, None))),
        ({"dtype": "uint8", "layout": "nhwc"}, ForeignImage("input.1", "uint8", "nhwc", (None, None, None))),
        ({"sizes": (1, 48, "w")}, ForeignImage("input.1", "float32", "nchw", (1, 48, None))),
        ({"sizes": (4, 48, 64), "layout": "nhwc"}, ForeignImage("input.1", "float32", "nhwc", (4, 48, 64))),
    ],
)
def test_the_only_input_and_the_only_output_are_taken_unasked(options, image):
    foreign = read(net(**options))
    assert (foreign.image, foreign.logits) == (image, "output")
    assert foreign.content == net(**options).SerializeToString()


def test_a_shape_fixes_what_is_open_and_nothing_else():
    assert read(net(), shape=ImageShape(2, 30, 40)).image.fixed == ImageShape(2, 30, 40)
    assert read(net(sizes=(1, "h", "w")), shape=ImageShape(1, 30, 40)).image.fixed == ImageShape(1, 30, 40)
    with pytest.raises(UsageError, match=r"fixed; got `shape=\"2x30x40\"`; expected input.1 float \[1, 3, h, w\]"):
        read(net(sizes=(1, "h", "w")), shape=ImageShape(2, 30, 40))


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_that_are_no_sizes_are_any(size):
    foreign = read(net(sizes=(size, size, size)))
    assert foreign.image.sizes == (None, None, None)
    with ForeignBackend(foreign) as backend:
        assert backend.takes(ImageShape(2, 30, 40)) is None


def test_several_outputs_are_listed_with_types_and_shapes():
    found = r"got middle_relu float \[n, 8, .*\], output float \[.*\]; .* fix: name it, such as `logits=middle_relu`"
    with pytest.raises(InputError, match=rf"net.onnx has several outputs; {found}"):
        read(net(outputs=["middle_relu"]))


@pytest.mark.parametrize("name", ["logits", "out"])
def test_of_several_outputs_the_one_that_is_called_logits_is_taken(name):
    foreign = read(net(outputs=["middle_relu"], name=name))
    assert foreign.logits == name
    assert [output.name for output in onnx.load_model_from_string(foreign.content).graph.output] == [name]


@pytest.mark.parametrize(
    ("wanted", "name"), [("output", "output"), (1, "output"), ("-1", "output"), (0, "middle_relu"), ("large", "large")]
)
def test_logits_are_chosen_by_name_or_index_also_inside(wanted, name):
    foreign = read(net(outputs=["middle_relu"], end="Softmax"), logits=wanted)
    assert foreign.logits == name
    made = {output for node in onnx.load_model_from_string(foreign.content).graph.node for output in node.output}
    assert ("output" in made) == (name == "output")  # what the logits do not need is removed
    assert ("large" in made) == (name != "middle_relu")


def test_an_index_counts_more_than_the_name_of_a_tensor_inside_and_less_than_that_of_an_output():
    proto = net(outputs=["middle_relu"])
    for node in proto.graph.node:
        node.input[:] = ["1" if name == "late_relu" else name for name in node.input]
        node.output[:] = ["1" if name == "late_relu" else name for name in node.output]
    assert read(proto, logits="1").logits == "output"
    proto.graph.output[0].name = "1"
    assert read(proto, logits="1").logits == "1"


@pytest.mark.parametrize("wanted", ["none", 2, "-3"])
def test_logits_that_are_not_there_are_refused_with_the_outputs(wanted):
    with pytest.raises(InputError, match=rf"has no tensor '?{wanted}'?; got outputs middle_relu float .* output float"):
        read(net(outputs=["middle_relu"]), logits=wanted)


def test_labels_are_refused_with_the_tensor_that_they_were_made_of():
    with pytest.raises(InputError, match=r"gives labels, not logits; got output int64 .*its ArgMax: `logits=larg"):
        read(net(end="ArgMax"))


@pytest.mark.parametrize(("operator", "attributes"), [("ArgMax", {"axis": 1}), ("Greater", {})])
def test_labels_are_refused_as_floats_too(operator, attributes):
    proto = net(name="scores", classes=1 if operator == "Greater" else 5)
    proto.graph.initializer.append(helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]))
    inputs = ["scores", "half"] if operator == "Greater" else ["scores"]
    proto.graph.node.append(helper.make_node(operator, inputs, ["labels"], **attributes))
    proto.graph.node.append(helper.make_node("Cast", ["labels"], ["output"], to=TensorProto.FLOAT))
    proto.graph.output[0].name = "output"
    with pytest.raises(InputError, match=rf"gives labels, not logits; got output float .*{operator}: `logits=scores`"):
        read(proto)


def test_the_largest_values_are_no_labels():
    proto = net(name="scores")
    proto.graph.initializer.append(helper.make_tensor("two", TensorProto.INT64, [1], [2]))
    proto.graph.node.append(helper.make_node("TopK", ["scores", "two"], ["output", "indices"], axis=1))
    proto.graph.output[0].name = "output"
    assert read(proto).logits == "output"
    with pytest.raises(InputError, match=r"gives labels.*name the tensor before its TopK"):
        read(proto, logits="indices")


def test_of_labels_and_logits_the_error_proposes_the_logits():
    proto = net(end="ArgMax", outputs=["large"])
    proto.graph.output.insert(0, proto.graph.output.pop())
    with pytest.raises(InputError, match=r"has several outputs; got output int64 .*such as `logits=large`"):
        read(proto)


def test_labels_of_no_known_operator_are_refused():
    proto = net()
    proto.graph.node.append(helper.make_node("Cast", ["output"], ["whole"], to=TensorProto.INT32))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("whole", TensorProto.INT32, [None] * 4))
    with pytest.raises(InputError, match="or name a float tensor inside with `logits`"):
        read(proto)


def test_an_input_that_the_logits_need_not_is_removed():
    foreign = read(second_input(net(), kept=False))
    assert [value.name for value in foreign.model.graph.inputs] == ["input.1"]
    assert [value.name for value in onnx.load_model_from_string(foreign.content).graph.input] == ["input.1"]
    with pytest.raises(InputError, match=r"the logits of net.onnx do not depend on 'factor'"):
        read(second_input(net(), kept=False), image="factor")


def test_several_inputs_are_listed():
    with pytest.raises(InputError, match=r"depend on 2 inputs; got input.1 float \[n, 3, h, w\], factor float \[1\]"):
        read(second_input(net()))
    with pytest.raises(InputError, match=r"net.onnx needs more than an image; got factor float \[1\]"):
        read(second_input(net()), image="input.1")
    with pytest.raises(InputError, match=r"net.onnx has no input 'data'; got input.1 float"):
        read(net(), image="data")


def test_constants_that_old_models_list_as_inputs_are_none():
    proto = net(opset=11)
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    proto.ir_version = 3
    foreign = read(proto)
    assert [value.name for value in foreign.model.graph.inputs] == ["input.1"]
    assert foreign.content == proto.SerializeToString()
    onnx.checker.check_model(ir.to_proto(foreign.model))  # of a format that lets constants stand alone


@pytest.mark.parametrize(
    ("sizes", "dtype", "what"),
    [
        ([3, "h", "w"], TensorProto.FLOAT, r"does not take images; got input.1 float \[3, h, w\].*axis of a batch"),
        (["n", 3, "h", "w"], TensorProto.DOUBLE, r"does not take images; got input.1 double"),
        (["n", 4, "h", "w"], TensorProto.FLOAT, "does not say which axis is that of the channels"),
        ([1, 1, 32, 32], TensorProto.FLOAT, "does not take images of three channels"),
        (["n", "c", "h", "w"], TensorProto.FLOAT, "does not say which axis is that of the channels"),
        ([1, 3, 32, 3], TensorProto.FLOAT, "does not say which axis is that of the channels"),
    ],
)
def test_an_input_that_is_no_image_is_refused(sizes, dtype, what):
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["input.1"], ["output"])],
            "graph",
            [helper.make_tensor_value_info("input.1", dtype, sizes)],
            [helper.make_tensor_value_info("output", dtype, [None] * len(sizes))],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with pytest.raises(InputError, match=what):
        read(proto)


def test_a_layout_is_taken_if_the_shape_leaves_a_choice_and_else_checked():
    assert read(with_input(net(), ["n", "c", "h", "w"]), layout="nchw").image.layout == "nchw"
    assert read(with_input(net(), [1, 3, 32, 3]), layout="nhwc").image.sizes == (1, 3, 32)
    with pytest.raises(UsageError, match=r"another layout; got `layout=\"nhwc\"`"):
        read(net(), layout="nhwc")


@pytest.mark.parametrize(("key", "what"), [(METADATA_KEY, "an exported model"), (ENGINE_KEY, "an engine")])
def test_what_this_package_wrote_is_named(key, what):
    proto = net()
    proto.metadata_props.add(key=key, value="{}")
    with pytest.raises(InputError, match=f"net.onnx is {what} already"):
        read(proto)


def test_an_opset_of_the_future_is_refused():
    with pytest.raises(InputError, match="an opset that is not supported; got 24; expected at most 23; fix: export it"):
        read(net(opset=24))


def test_a_model_without_outputs_is_refused():
    proto = net()
    del proto.graph.output[:]
    with pytest.raises(InputError, match=r"net.onnx has no outputs"):
        read(proto)


def test_what_is_no_onnx_model_is_refused():
    with pytest.raises(InputError, match=re.escape("net.onnx is not an ONNX model")):
        read_foreign(b"weights", "net.onnx")
