"""Weights in another file: embedded when a model is read, found beside the model and nowhere else."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import set_external_data

import fcn_deploy as fd
from fcn_deploy.errors import InputError
from fcn_deploy.files import sha256_file
from fcn_deploy.graph.external_data import read_with_weights
from fcn_deploy.graph.model import ExportedModel, load_exported
from fcn_deploy.runtime import Segmenter


@pytest.fixture
def external(exported, tmp_path):
    """The exported FCN-8s, its weights in a file beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    proto = onnx.load(exported("fcn8s"))
    onnx.save_model(proto, folder / "net.onnx", save_as_external_data=True, location="net.weights", size_threshold=0)
    return folder / "net.onnx"


def test_a_model_without_is_read_byte_for_byte(exported):
    assert read_with_weights(exported("fcn8s")) == exported("fcn8s").read_bytes()


def test_weights_are_embedded_and_count_in_the_hash(external, exported):
    model = load_exported(external)
    weights = external.with_name("net.weights")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert load_exported(external).sha256 != model.sha256
    assert model.sha256 != sha256_file(external)


def test_an_engine_of_it_has_its_weights_and_runs_elsewhere(external, exported, tmp_path, photos, monkeypatch):
    fd.build_engine(external, output=tmp_path / "engine.onnx")
    expected = Segmenter(exported("fcn8s"))(photos[0])
    shutil.rmtree(external.parent)
    monkeypatch.chdir(tmp_path)
    with Segmenter("engine.onnx") as segmenter:
        assert np.mean(segmenter(photos[0]) == expected) >= 0.999


def test_a_file_of_that_name_in_the_working_directory_is_not_taken(external, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    weights = external.with_name("net.weights")
    (elsewhere / "net.weights").write_bytes(bytes(len(weights.read_bytes())))
    model = load_exported(external)
    monkeypatch.chdir(elsewhere)
    assert load_exported(external).sha256 == model.sha256
    weights.unlink()
    with pytest.raises(InputError, match=r"cannot read the weights of .*net\.onnx"):
        load_exported(external)


def test_content_alone_does_not_say_where_its_weights_are(external):
    with pytest.raises(InputError, match="keeps weights in another file"):
        ExportedModel.parse(external.read_bytes())


def test_a_name_outside_the_folder_is_refused(external):
    proto = onnx.load(external, load_external_data=False)
    shutil.move(external.with_name("net.weights"), external.parent.parent / "net.weights")
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../net.weights"
    external.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="cannot read the weights"):
        load_exported(external)


def test_weights_in_functions_are_embedded(tmp_path):
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32), "weight")
    (tmp_path / "weights.bin").write_bytes(weight.raw_data)
    set_external_data(weight, "weights.bin")
    weight.ClearField("raw_data")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    constant = helper.make_node("Constant", [], ["y"], value=weight)
    function = helper.make_function("own", "Six", [], ["y"], [constant], opsets[:1])
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [6])
    graph = helper.make_graph([helper.make_node("Six", [], ["y"], domain="own")], "g", [], [output])
    model = helper.make_model(graph, functions=[function], opset_imports=opsets)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    read = onnx.load_model_from_string(read_with_weights(tmp_path / "net.onnx"))
    assert numpy_helper.to_array(read.functions[0].node[0].attribute[0].t).tolist() == list(range(6))


@pytest.mark.parametrize("place", ["graph", "node", "inner graph"])
def test_sparse_weights_in_another_file_are_refused(exported, tmp_path, monkeypatch, place):
    """Their file would be searched in the working directory."""
    values = helper.make_tensor("pruned", onnx.TensorProto.FLOAT, [1], [1.0])
    values.ClearField("float_data")
    values.data_location = onnx.TensorProto.EXTERNAL
    entry = values.external_data.add()
    entry.key, entry.value = "location", "pruned.weights"
    indices = helper.make_tensor("indices", onnx.TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [4])
    proto = onnx.load(exported("fcn8s"))
    node = helper.make_node("Constant", [], ["pruned"], sparse_value=sparse)
    if place == "graph":
        proto.graph.sparse_initializer.append(sparse)
    elif place == "node":
        proto.graph.node.append(node)
    else:
        inner = helper.make_graph([node], "inner", [], [])
        proto.graph.node.append(helper.make_node("If", ["condition"], ["a"], then_branch=inner, else_branch=inner))
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    (tmp_path / "cwd" / "pruned.weights").write_bytes(bytes(4))
    message = r"net\.onnx keeps weights as sparse tensors; got pruned.*; expected dense"
    with pytest.raises(InputError, match=message):
        load_exported(tmp_path / "net.onnx")
    content = proto.SerializeToString().replace(b"location", b"lacation")  # in the file itself they are no better
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_exported(tmp_path / "net.onnx")
