import numpy as np
import onnx
import pytest

from fcn_deploy.errors import InputError
from fcn_deploy.files import sha256_file
from fcn_deploy.graph.model import ExportedModel, load_exported, serialize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


def test_an_exported_model_says_what_it_is_in_one_line(exported):
    model = load_exported(str(exported("fcn8s")))
    assert model.sha256 == sha256_file(exported("fcn8s"))
    assert model.spec.variant == "fcn8s"
    assert repr(model) == f"ExportedModel(fcn8s, 5 classes, sha256 {model.sha256[:12]}...)"


def test_a_copy_may_be_rewritten_and_the_model_stays(exported):
    model = load_exported(exported("fcn8s"))
    nodes = [node.name for node in model.graph]
    copy = model.copy()
    image = np.random.default_rng(0).normal(size=(1, 3, 33, 47)).astype(np.float32)
    expected, found = (
        OnnxRuntimeBackend(data).infer({"image": image})["logits"] for data in (model.content, serialize(copy))
    )
    np.testing.assert_array_equal(found, expected)
    copy.graph.outputs[0].name = "scores"
    for node in copy.graph:
        node.name = f"{node.name}/renamed"
    assert [node.name for node in model.graph] == nodes
    assert model.graph.outputs[0].name == "logits"


def test_what_is_saved_is_the_same_file(exported, tmp_path):
    model = load_exported(exported("fcn8s"))
    model.save(tmp_path / "copy.onnx")
    assert sha256_file(tmp_path / "copy.onnx") == model.sha256


def test_a_model_without_a_spec_or_with_another_signature_is_refused(exported):
    proto = onnx.load(exported("fcn8s"))
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("relu7/Relu", onnx.TensorProto.FLOAT, ["n", 64, "h", "w"])
    )
    with pytest.raises(InputError, match="not an exported segmentation net"):
        ExportedModel.parse(proto.SerializeToString())
    del proto.graph.output[-1], proto.metadata_props[:]
    with pytest.raises(InputError, match=r"does not say how its images are normalised.*fcn-deploy export"):
        ExportedModel.parse(proto.SerializeToString())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08"])
def test_content_that_is_not_a_model_is_refused(content):
    with pytest.raises(InputError, match="not an ONNX model"):
        ExportedModel.parse(content)


def test_what_is_no_exported_model_is_refused_by_name(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"net\.onnx is not an ONNX model"):
        load_exported(tmp_path / "net.onnx")
    with pytest.raises(InputError, match="the model is not an ONNX model"):
        ExportedModel.parse(b"")
