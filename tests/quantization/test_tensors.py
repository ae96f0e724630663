import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fcn_deploy.graph.model import parse
from fcn_deploy.quantization.tensors import activation, observed_tensors, ranged_tensor


def graph_of(nodes, outputs, inputs=("image",)):
    """A graph of (operator, inputs, output) whose tensors are all float [n, 3, h, w]."""

    def tensor(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"])

    made = [helper.make_node(op, list(sources), [target], name=target) for op, sources, target in nodes]
    graph = helper.make_graph(made, "g", [tensor(name) for name in inputs], [tensor(name) for name in outputs])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])).graph


def names(values):
    return [value.name for value in values]


def value_of(graph, name):
    return next(value for node in graph for value in node.outputs if value.name == name)


@pytest.fixture(scope="module")
def net(exported):
    return parse(exported("fcn8s").read_bytes()).graph


# On the exported net


def test_the_image_and_every_layer_are_observed(net):
    found = names(observed_tensors(net))
    assert found[0] == "image"
    assert len(found) == len(set(found))
    for block, convs in enumerate((2, 2, 3, 3, 3), 1):
        for conv in range(1, convs + 1):
            assert f"conv{block}_{conv}/Relu" in found
    assert {"relu6/Relu", "relu7/Relu", "score_fr/Conv", "score_pool4_fr/Conv", "upscore2/ConvTranspose"} <= set(found)


def test_pools_and_crops_are_not_observed(net):
    passing = {node.outputs[0].name for node in net if node.op_type in ("MaxPool", "Slice", "Reshape", "Squeeze")}
    assert len(passing) >= 5 + 3
    assert not passing & set(names(observed_tensors(net)))


def test_what_only_a_relu_reads_is_not_observed(net):
    before = {node.inputs[0].name for node in net if node.op_type == "Relu"}
    assert len(before) == 15
    assert not before & set(names(observed_tensors(net)))


def test_sizes_are_not_observed(net):
    shapes = {node.outputs[0].name for node in net if node.op_type in ("Shape", "Concat", "Div", "Squeeze")}
    assert shapes
    assert not shapes & set(names(observed_tensors(net)))


def test_what_every_convolution_reads_and_writes_has_a_range(net):
    known = set(names(observed_tensors(net)))
    layers = [node for node in net if node.op_type in ("Conv", "ConvTranspose")]
    assert len(layers) == 21
    for layer in layers:
        for value in (layer.inputs[0], activation(layer)):
            source = ranged_tensor(value, known)
            assert source is not None
            assert source.name in known


def test_a_pool_shares_the_range_of_what_it_pools(net):
    known = set(names(observed_tensors(net)))
    assert ranged_tensor(value_of(net, "pool1/MaxPool"), known).name == "conv1_2/Relu"
    assert ranged_tensor(value_of(net, "pool5/MaxPool"), known).name == "conv5_3/Relu"


def test_the_logits_share_the_range_of_the_map_they_are_cropped_from(net):
    known = set(names(observed_tensors(net)))
    assert ranged_tensor(net.outputs[0], known).name == "upscore8/ConvTranspose"


# On graphs made by hand


def test_a_chain_of_what_passes_values_on_is_followed_to_its_start():
    graph = graph_of(
        [
            ("Sigmoid", ["image"], "a"),
            ("MaxPool", ["a"], "b"),
            ("Identity", ["b"], "c"),
            ("Transpose", ["c"], "d"),
        ],
        ["d"],
    )
    assert names(observed_tensors(graph)) == ["image", "a"]
    assert ranged_tensor(value_of(graph, "d"), {"a"}).name == "a"
    assert ranged_tensor(value_of(graph, "d"), {"a", "c"}).name == "c"
    assert ranged_tensor(value_of(graph, "a"), {"a"}).name == "a"


def test_a_pool_of_the_image_shares_the_range_of_the_image():
    graph = graph_of([("MaxPool", ["image"], "a"), ("Sigmoid", ["a"], "b")], ["b"])
    assert names(observed_tensors(graph)) == ["image", "b"]
    assert ranged_tensor(value_of(graph, "a"), {"image", "b"}).name == "image"


def test_what_is_split_shares_the_range_of_the_whole_and_what_is_computed_of_any_part_is_observed():
    nodes = [
        helper.make_node("Tanh", ["image"], ["whole"]),
        helper.make_node("Split", ["whole"], ["first", "second"], num_outputs=2, axis=1),
        helper.make_node("Sigmoid", ["second"], ["gate"]),
    ]
    image, gate = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, "h", "w"]) for name in ("image", "gate")
    )
    model = helper.make_model(
        helper.make_graph(nodes, "g", [image], [gate]), opset_imports=[helper.make_opsetid("", 18)]
    )
    graph = ir.from_proto(model).graph
    assert names(observed_tensors(graph)) == ["image", "whole", "gate"]
    assert [ranged_tensor(value_of(graph, name), {"whole"}).name for name in ("first", "second")] == ["whole"] * 2


def test_what_computes_is_not_passed_through():
    graph = graph_of([("Sigmoid", ["image"], "a"), ("MaxPool", ["a"], "b")], ["b"])
    assert ranged_tensor(value_of(graph, "b"), {"image"}) is None
    assert ranged_tensor(value_of(graph, "b"), set()) is None


@pytest.mark.parametrize("op", ["AveragePool", "GlobalAveragePool", "Softmax", "Relu"])
def test_what_computes_new_values_is_observed(op):
    graph = graph_of([("Sigmoid", ["image"], "a"), ("Tanh", ["a"], "other"), (op, ["a"], "b")], ["b", "other"])
    assert names(observed_tensors(graph)) == ["image", "a", "other", "b"]


def test_a_relu_that_is_not_alone_leaves_its_input_observed():
    graph = graph_of([("Tanh", ["image"], "a"), ("Relu", ["a"], "b"), ("Neg", ["a"], "c")], ["b", "c"])
    assert names(observed_tensors(graph)) == ["image", "a", "b", "c"]
    assert activation(value_of(graph, "a").producer()).name == "a"


def test_a_relu_after_an_output_leaves_the_output_observed():
    graph = graph_of([("Tanh", ["image"], "a"), ("Relu", ["a"], "b")], ["a", "b"])
    assert names(observed_tensors(graph)) == ["image", "a", "b"]


def test_a_relu_that_alone_reads_a_layer_is_its_activation():
    graph = graph_of([("Tanh", ["image"], "a"), ("Relu", ["a"], "b")], ["b"])
    assert names(observed_tensors(graph)) == ["image", "b"]
    assert activation(value_of(graph, "a").producer()).name == "b"


@pytest.mark.parametrize("op", ["Pad", "Gather"])
def test_padding_shares_the_range_of_what_it_pads(op):
    graph = graph_of([("Tanh", ["image"], "a"), (op, ["a", "places"], "b")], ["b"], inputs=("image", "places"))
    assert ranged_tensor(value_of(graph, "b"), {"a"}).name == "a"


def test_integers_and_what_is_computed_from_them_are_not_observed():
    graph = graph_of([("Shape", ["image"], "size"), ("Tanh", ["image"], "a")], ["a"])
    value_of(graph, "size").type = ir.TensorType(ir.DataType.INT64)
    assert names(observed_tensors(graph)) == ["image", "a"]


def test_floats_that_come_back_from_another_type_are_observed():
    there = helper.make_node("Cast", ["image"], ["double"], to=TensorProto.DOUBLE)
    computed = helper.make_node("Exp", ["double"], ["power"])
    back = helper.make_node("Cast", ["power"], ["out"], to=TensorProto.FLOAT)
    size = helper.make_node("Shape", ["image"], ["size"])
    as_float = helper.make_node("Cast", ["size"], ["float_size"], to=TensorProto.FLOAT)
    tensor = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    result = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3, "h", "w"])
    proto = helper.make_graph([there, computed, back, size, as_float], "g", [tensor], [result])
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(helper.make_model(proto))).graph
    assert names(observed_tensors(graph)) == ["image", "out"]


@pytest.mark.parametrize(("value", "passes"), [(None, True), (0.0, True), (20.0, False)])
def test_padding_with_another_value_than_zero_is_observed(value, passes):
    inputs = ["a", "pads"] if value is None else ["a", "pads", "value"]
    nodes = [helper.make_node("Tanh", ["image"], ["a"]), helper.make_node("Pad", inputs, ["b"])]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("image", "b")]
    constants = [helper.make_tensor("pads", TensorProto.INT64, [8], [1] * 8)]
    if value is not None:
        constants.append(helper.make_tensor("value", TensorProto.FLOAT, [], [value]))
    graph = helper.make_graph(nodes, "g", made[:1], made[1:], constants)
    graph = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])).graph
    assert names(observed_tensors(graph)) == (["image", "a"] if passes else ["image", "a", "b"])
