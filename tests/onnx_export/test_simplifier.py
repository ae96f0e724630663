import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.onnx_export import simplifier
from fcn_deploy.onnx_export.simplifier import run_onnxsim
from fcn_deploy.onnx_export.tracing import export_onnx
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from tests.support import custom_nets


def _small_model():
    shape = ["batch", 3, "height", "width"]
    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "logits")}
    node = helper.make_node("Relu", ["image"], ["logits"])
    return helper.make_model(helper.make_graph([node], "net", [value["image"]], [value["logits"]]))


def test_the_simplified_model_keeps_dims_metadata_and_results():
    net = custom_nets.trained(custom_nets.Depthwise())
    before, _ = export_onnx(net, ModelSpec("fcn8s", 8, 0.0625, 5, tuple("abcde"), default_palette(5)))
    after = run_onnxsim(before)
    assert len(after.graph.node) <= len(before.graph.node)
    assert list(after.metadata_props) == list(before.metadata_props)
    assert after.graph.output[0].type == before.graph.output[0].type
    old, new = (OnnxRuntimeBackend(model.SerializeToString()) for model in (before, after))
    for size in [(1, 3, 1, 1), (2, 3, 65, 97), (1, 3, 31, 32)]:
        image = np.random.default_rng(0).normal(size=size).astype(np.float32)
        np.testing.assert_allclose(
            new.infer({"image": image})["logits"], old.infer({"image": image})["logits"], rtol=1e-5, atol=1e-5
        )


def test_a_crash_of_onnxsim_is_an_input_error(monkeypatch):
    def crash(*args, **kwargs):
        return subprocess.CompletedProcess(args, -11, "", "Segmentation fault")

    monkeypatch.setattr(simplifier.subprocess, "run", crash)
    with pytest.raises(InputError, match="exit status -11: Segmentation fault"):
        run_onnxsim(_small_model())


def test_a_dimension_that_onnxsim_makes_static_is_an_input_error(monkeypatch):
    def freeze(command, **kwargs):
        model = onnx.load(command[-3])
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
        onnx.save(model, command[-2])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(simplifier.subprocess, "run", freeze)
    with pytest.raises(InputError, match="onnxsim changed the model's outputs"):
        run_onnxsim(_small_model())
