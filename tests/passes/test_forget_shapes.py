import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fcn_deploy.passes.forget_shapes import ForgetShapes


@pytest.fixture
def graph():
    """A pool that is said to give 1x1, as torch says it of a net that it traced at a small size."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[5, 5], strides=[4, 4]),
        helper.make_node("Relu", ["pooled"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "a", "b"])
    pooled = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["n", 3, 1, 1])
    return helper.make_model(
        helper.make_graph(nodes, "pool", [image], [logits], value_info=[pooled]),
        opset_imports=[helper.make_opsetid("", 18)],
    )


def test_shapes_of_inner_tensors_are_forgotten_and_types_and_signature_kept(graph):
    result = ForgetShapes()(ir.from_proto(graph))
    assert result.modified
    (pool, _) = result.model.graph
    assert (pool.outputs[0].shape, pool.outputs[0].dtype) == (None, ir.DataType.FLOAT)
    written = ir.to_proto(result.model).graph
    assert not any(value.type.tensor_type.HasField("shape") for value in written.value_info)
    assert (written.input, written.output) == (graph.graph.input, graph.graph.output)


def test_a_graph_that_states_none_is_not_modified(graph):
    model = ForgetShapes()(ir.from_proto(graph)).model
    assert not ForgetShapes()(model).modified
