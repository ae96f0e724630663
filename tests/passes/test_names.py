"""Names that people read: layers named after modules, dimensions of the output after those of the input."""

import numpy as np
import onnx_ir as ir
import pytest

from fcn_deploy.graph.model import parse
from fcn_deploy.passes.names import NameDims, NameLayers, ReserveNames, UniqueNames
from fcn_deploy.passes.rewrite import Declined

SCOPES = "pkg.torch.onnx.name_scopes"


def _conv(scope, source, name):
    node = ir.node("Conv", [source, ir.Value(name=f"{name}.weight")], name=name)
    node.outputs[0].name = name
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    if scope:
        node.metadata_props[SCOPES] = repr(["", *scope, "op"])
    return node


def _model(*scopes):
    image = ir.Value(name="image", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 3, "h", "w"]))
    nodes, value = [], image
    for index, scope in enumerate(scopes):
        nodes.append(_conv(scope, value, f"node_{index}"))
        value = nodes[-1].outputs[0]
    value.shape = ir.Shape(["n", 3, "min(h, 8)", 7])
    graph = ir.Graph([image], [value], nodes=nodes, opset_imports={"": 18}, name="g")
    return ir.Model(graph, ir_version=10)


def _names(model):
    return [node.name for node in model.graph]


def test_the_position_in_a_pair_is_left_out_where_the_name_stays_unique():
    result = NameLayers()(_model(["conv1_1", "conv1_1.0"], ["conv1_2", "conv1_2.0"]))
    model = result.model
    assert result.modified
    assert _names(model) == ["conv1_1", "conv1_2"]
    assert model.graph[0].outputs[0].name == "conv1_1/Conv"


def test_the_position_stays_where_it_tells_layers_apart():
    model = NameLayers()(_model(["features", "features.0"], ["features", "features.2"])).model
    assert _names(model) == ["features.0", "features.2"]


def test_a_layer_used_twice_gets_two_names():
    model = NameLayers()(_model(["head"], ["head"])).model
    assert _names(model) == ["head", "head_1"]


def test_the_output_of_the_graph_keeps_its_name():
    model = NameLayers()(_model(["score"])).model
    assert model.graph.outputs[0].name == "node_0"


def test_a_graph_that_torch_did_not_write_is_left_alone():
    result = NameLayers()(_model(None, None))
    assert not result.modified
    assert _names(result.model) == ["node_0", "node_1"]
    assert result.declined == (Declined(f"no node says in {SCOPES} which module it was traced in"),)


def test_dims_of_the_output_are_named_as_those_of_the_input_and_numbers_stay():
    result = NameDims()(_model(["score"]))
    model = result.model
    assert result.modified
    assert str(model.graph.outputs[0].shape) == "[n,3,h,7]"
    assert not NameDims()(model).modified


def test_dims_of_other_ranks_are_left_alone():
    model = _model(["score"])
    model.graph.outputs[0].shape = ir.Shape(["n", 10])
    result = NameDims()(model)
    assert not result.modified
    assert result.declined == (Declined("input [n,3,h,w] and output [n,10] are not both of rank 4"),)


@pytest.mark.parametrize("variant", ["fcn8s"])
def test_every_name_in_an_exported_graph_is_unique(exported, variant):
    graph = parse(exported(variant).read_bytes()).graph
    names = [node.name for node in graph]
    values = [value.name for node in graph for value in node.outputs]
    assert len(set(names)) == len(names)
    assert len(set(values)) == len(values)


# Nets of the user's own


def _with_weights(node, name):
    """Gives a convolution weights of that name, as torch.onnx does."""
    weights = ir.Value(name=name, const_value=ir.tensor(np.zeros((3, 3, 1, 1), np.float32), name=name))
    node.replace_input_with(1, weights)


def test_a_convolution_that_took_in_its_batch_normalisation_keeps_its_own_name():
    model = _model(["layer1", "layer1.bn1"])
    _with_weights(model.graph[0], "layer1.conv1.weight")
    assert _names(NameLayers()(model).model) == ["layer1.conv1"]


def test_the_path_of_the_whole_net_goes_without_saying():
    model = _model(["net", "net.stem"], ["net", "net.head"])
    _with_weights(model.graph[1], "net.head.weight")
    assert _names(NameLayers("net")(model).model) == ["stem", "head"]


def test_a_number_never_makes_a_name_that_is_taken():
    model = NameLayers()(_model(["head_1"], ["head"], ["head"])).model
    assert _names(model) == ["head_1", "head", "head_2"]


def test_nodes_without_a_name_or_with_that_of_another_get_one_of_their_own():
    model = _model([], [], [])
    for node, name in zip(model.graph, ("", "same", "same"), strict=True):
        node.name = name
    assert UniqueNames()(model).modified
    assert _names(model) == ["node_0", "same", "same_1"]
    assert not UniqueNames()(model).modified


def test_names_that_others_use_get_a_prefix():
    model = _model([], [])
    first, second = model.graph
    first.name, second.name = "image/Cast", "images"
    first.outputs[0].name = "labels"
    assert ReserveNames()(model).modified
    assert _names(model) == ["net/image/Cast", "images"]
    assert [str(node.outputs[0].name) for node in model.graph] == ["net/labels", "node_1"]
    assert model.graph.inputs[0].name == "net/image"
    assert not ReserveNames()(model).modified
