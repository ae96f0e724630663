"""Models of 2 GB and more are refused before their weights are read or written."""

import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import fcn_deploy as fd
from fcn_deploy.errors import InputError
from fcn_deploy.graph import external_data, size_limit
from fcn_deploy.graph.external_data import read_with_weights, write_with_external_weights
from fcn_deploy.graph.model import load_exported, parse, serialize

GB = 10**9


@pytest.fixture
def limit(monkeypatch):
    """Lets an ONNX file hold only so many bytes of weights."""
    return lambda size: monkeypatch.setattr(size_limit, "LARGEST", size)


def _sized(length, location="net.weights", stated=True):
    """A model that says its one weight is so many bytes of another file."""
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[length // 4])
    weight.data_location = TensorProto.EXTERNAL
    entries = {"location": location, **({"length": str(length)} if stated else {})}
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [length // 4])
    node = helper.make_node("Identity", ["weight"], ["logits"])
    return helper.make_model(helper.make_graph([node], "net", [], [output], [weight]))


def _sparse(path, size):
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)


@pytest.mark.parametrize("read", [load_exported, fd.adopt], ids=["load_exported", "adopt"])
def test_weights_of_more_than_2_gb_beside_a_model_are_refused_before_they_are_read(tmp_path, monkeypatch, read):
    (tmp_path / "net.onnx").write_bytes(_sized(2_300_000_000).SerializeToString())
    _sparse(tmp_path / "net.weights", 2_300_000_000)
    monkeypatch.setattr(external_data, "load_external_data_for_tensor", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(InputError) as caught:
        read(tmp_path / "net.onnx")
    assert str(caught.value) == (
        f"{tmp_path / 'net.onnx'} is too large for one ONNX file; got 2.3 GB of weights; expected less than 2 GB; "
        "fix: use a smaller net, such as one of fewer channels"
    )


def test_a_file_of_more_than_2_gb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    _sparse(tmp_path / "net.onnx", 5 * GB)
    monkeypatch.setattr(external_data, "read_bytes", lambda *_: pytest.fail("the file was read"))
    with pytest.raises(InputError, match=r"net\.onnx is too large for one ONNX file; got 5\.0 GB of weights"):
        load_exported(tmp_path / "net.onnx")


def test_a_length_that_is_no_number_of_bytes_is_an_input_error(tmp_path):
    model = _sized(4000)
    model.graph.initializer[0].external_data[1].value = "9" * 5000
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "net.weights").write_bytes(bytes(4000))
    with pytest.raises(InputError, match="cannot read the weights"):
        read_with_weights(tmp_path / "net.onnx")


def test_weights_whose_length_is_not_stated_are_refused_too(tmp_path, limit):
    (tmp_path / "net.onnx").write_bytes(_sized(4000, stated=False).SerializeToString())
    (tmp_path / "net.weights").write_bytes(bytes(4000))
    assert len(read_with_weights(tmp_path / "net.onnx")) > 4000
    limit(4000)
    with pytest.raises(InputError, match="too large for one ONNX file"):
        read_with_weights(tmp_path / "net.onnx")


@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_a_model_that_would_be_too_large_is_refused_before_it_is_made(limit, place):
    weight = ir.tensor(np.zeros((1000,), np.float32), name="weight")
    if place == "initializer":
        value = ir.Value(name="weight", const_value=weight, shape=ir.Shape([1000]), type=ir.TensorType(weight.dtype))
        model = ir.Model(ir.Graph([value], [], nodes=[], initializers=[value], opset_imports={"": 18}), ir_version=10)
    else:
        node = ir.node("Constant", [], {"value": weight})
        model = ir.Model(ir.Graph([], node.outputs, nodes=[node], opset_imports={"": 18}), ir_version=10)
    limit(4000)
    assert len(serialize(model)) > 4000
    limit(3999)
    with pytest.raises(InputError, match=r"the engine is too large .* fix: build another"):
        serialize(model, "the engine", "build another")
    with pytest.raises(InputError, match=r"the model is too large .* fix: use a smaller net"):
        serialize(model)


def test_an_engine_that_would_be_too_large_is_an_input_error_with_what_to_do(exported, limit, monkeypatch):
    model = load_exported(exported("fcn8s"))
    limit(2000)
    with pytest.raises(InputError, match=r"the engine is too large for one ONNX file.*fix: use a smaller net"):
        fd.build_engine(model)


def test_a_model_is_written_with_its_weights_beside_it_and_read_again_as_one(exported, tmp_path):
    model = parse(exported("fcn8s").read_bytes())
    content = serialize(model)
    write_with_external_weights(model, tmp_path / "net.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "net.onnx.weights"}
    assert (tmp_path / "net.onnx").stat().st_size < len(content) / 4
    assert serialize(model) == content  # it is as it was
    found = onnx.load_model_from_string(read_with_weights(tmp_path / "net.onnx"))
    expected = onnx.load_model_from_string(content)
    assert list(found.graph.node) == list(expected.graph.node)
    weights = [{w.name: numpy_helper.to_array(w).tobytes() for w in net.graph.initializer} for net in (found, expected)]
    assert weights[0] == weights[1]


def test_a_folder_that_cannot_be_written_is_an_input_error(exported, tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*missing.net\.onnx"):
        write_with_external_weights(parse(exported("fcn8s").read_bytes()), tmp_path / "missing" / "net.onnx")
