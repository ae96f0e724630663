import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.graph.external_data import read_with_weights
from fcn_deploy.graph.model import serialize
from fcn_deploy.onnx_export import onnxsim_process, simplifier
from fcn_deploy.onnx_export.simplifier import simplified, simplify_file
from fcn_deploy.onnx_export.tracing import export_onnx
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from tests.support import custom_nets


def _small_model():
    shape = ["batch", 3, "height", "width"]
    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "logits")}
    node = helper.make_node("Relu", ["image"], ["logits"])
    return ir.from_proto(
        helper.make_model(helper.make_graph([node], "net", [value["image"]], [value["logits"]]), ir_version=10)
    )


def test_the_simplified_model_keeps_dims_metadata_and_results():
    net = custom_nets.trained(custom_nets.Depthwise())
    model, _ = export_onnx(net, ModelSpec("fcn8s", 8, 0.0625, 5, tuple("abcde"), default_palette(5)))
    before = ir.to_proto(model)
    after = onnx.load_model_from_string(simplified(model))
    assert len(after.graph.node) <= len(before.graph.node)
    assert list(after.metadata_props) == list(before.metadata_props)
    assert after.graph.output[0].type == before.graph.output[0].type
    old, new = (OnnxRuntimeBackend(model.SerializeToString()) for model in (before, after))
    for size in [(1, 3, 1, 1), (2, 3, 65, 97), (1, 3, 31, 32)]:
        image = np.random.default_rng(0).normal(size=size).astype(np.float32)
        np.testing.assert_allclose(
            new.infer({"image": image})["logits"], old.infer({"image": image})["logits"], rtol=1e-5, atol=1e-5
        )


def test_a_file_is_simplified_to_a_file_with_its_weights_beside_it(tmp_path):
    model, _ = export_onnx(
        custom_nets.trained(custom_nets.Depthwise()),
        ModelSpec("fcn8s", 8, 0.0625, 5, tuple("abcde"), default_palette(5)),
    )
    (tmp_path / "model.onnx").write_bytes(serialize(model))
    simplify_file(tmp_path / "model.onnx", tmp_path / "simplified.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "simplified.onnx", "simplified.onnx.weights"}
    assert read_with_weights(tmp_path / "simplified.onnx") == simplified(model)


def test_a_crash_of_onnxsim_is_an_input_error(monkeypatch):
    def crash(*args, **kwargs):
        return subprocess.CompletedProcess(args, -11, "", "Segmentation fault")

    monkeypatch.setattr(simplifier.subprocess, "run", crash)
    with pytest.raises(InputError, match="exit status -11: Segmentation fault"):
        simplified(_small_model())


def test_a_model_that_onnxsim_cannot_read_is_an_input_error_with_its_reason(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"onnxsim cannot simplify the model; got exit status 1: \w+"):
        simplify_file(tmp_path / "model.onnx", tmp_path / "simplified.onnx")


def test_a_dimension_that_onnxsim_makes_static_is_an_input_error(monkeypatch):
    def freeze(command, **kwargs):
        source, target = command[-2:]
        model = onnx.load(source)
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
        onnx.save(model, target)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(simplifier.subprocess, "run", freeze)
    with pytest.raises(InputError, match="onnxsim changed the model's outputs"):
        simplified(_small_model())


_IMPORTED = """
import importlib.util, sys
found = importlib.util.spec_from_file_location("process", sys.argv[1])
process = importlib.util.module_from_spec(found)
found.loader.exec_module(process)
real = process.importlib.import_module
def needs_the_package(name):
    if not hasattr(sys.modules["onnxsim"], "simplify"):
        raise ImportError(name)
    return real(name)
if sys.argv[2] == "whole":
    process.importlib.import_module = needs_the_package
print(process._onnxsim_simplify().__name__, sum(name.startswith("onnxsim.") for name in sys.modules) > 100)
"""


@pytest.mark.parametrize(("version", "whole"), [("of today", False), ("whole", True)])
def test_the_process_imports_of_onnxsim_what_it_needs(version, whole):
    if whole and _modules() < 100:
        pytest.skip("this version of onnxsim has few modules")
    command = [sys.executable, "-c", _IMPORTED, onnxsim_process.__file__, version]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["simplify", str(whole)]


def _modules():
    found = onnxsim_process.importlib.util.find_spec("onnxsim")
    return len(list(onnxsim_process.Path(found.origin).parent.glob("*.py")))
