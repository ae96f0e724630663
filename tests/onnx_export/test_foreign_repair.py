"""What ONNX Runtime takes and the checker of ONNX does not is repaired; all else is left to the reader."""

import onnx
import pytest
from onnx import TensorProto, helper

from fcn_deploy.errors import InputError
from fcn_deploy.onnx_export.foreign import read_foreign
from fcn_deploy.onnx_export.foreign_repair import repaired
from tests.support.foreign_models import net


def unsorted():
    proto = net()
    proto.graph.node.append(proto.graph.node.pop(0))
    return proto


def without_shapes(end=None):
    proto = net(end=end)
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return proto


@pytest.mark.parametrize("proto", [unsorted(), without_shapes()], ids=["order", "shapes"])
def test_order_and_shapes_are_repaired(proto):
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(proto)
    content = repaired(proto.SerializeToString())
    onnx.checker.check_model(content)
    assert sorted(node.output[0] for node in onnx.load_model_from_string(content).graph.node) == sorted(
        node.output[0] for node in proto.graph.node
    )
    foreign = read_foreign(proto.SerializeToString(), "net.onnx")
    assert foreign.logits == "output"
    onnx.checker.check_model(foreign.content)


@pytest.mark.parametrize("nodes", [False, True])
@pytest.mark.parametrize("both", [False, True])
def test_the_long_name_of_onnx_is_another_name_of_it(nodes, both):
    proto = net(opset=13)
    proto.opset_import[0].domain = "ai.onnx"
    if both:
        proto.opset_import.append(helper.make_opsetid("", 13))
    for node in proto.graph.node if nodes else ():
        node.domain = "ai.onnx"
    foreign = read_foreign(proto.SerializeToString(), "net.onnx")
    assert foreign.model.opset_imports == {"": 13}
    assert {node.domain for node in foreign.model.graph} == {""}


def test_a_tensor_that_was_made_an_output_to_look_at_is_no_obstacle():
    proto = net(end="ArgMax")
    proto.graph.output.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, None))
    assert read_foreign(proto.SerializeToString(), "net.onnx", logits="large").logits == "large"


def test_an_input_without_a_shape_is_taken_with_its_layout():
    proto = net()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    foreign = read_foreign(proto.SerializeToString(), "net.onnx", layout="nchw")
    assert foreign.image.sizes == (None, None, None)
    with pytest.raises(InputError, match="does not say which axis is that of the channels"):
        read_foreign(proto.SerializeToString(), "net.onnx")


def test_labels_without_a_shape_are_refused_as_labels():
    with pytest.raises(InputError, match="gives labels, not logits"):
        read_foreign(without_shapes("ArgMax").SerializeToString(), "net.onnx")


@pytest.mark.parametrize("content", [b"", b"text", net().SerializeToString()[:900], net().SerializeToString()])
def test_nothing_else_is_touched(content):
    assert repaired(content) is None


def test_a_circle_is_no_model():
    proto = net()
    proto.graph.node[0].input[0] = "output"
    with pytest.raises(InputError, match="is not an ONNX model"):
        read_foreign(proto.SerializeToString(), "net.onnx")
