import subprocess

import numpy as np
import onnx
import pytest

from fcn_deploy.errors import InputError
from fcn_deploy.onnx_export import simplifier as module
from fcn_deploy.onnx_export.simplifier import run_onnxsim
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


def test_dims_metadata_and_numbers_survive(make_net):
    from fcn_deploy.artifacts.palette import default_palette
    from fcn_deploy.artifacts.spec import ModelSpec
    from fcn_deploy.onnx_export.tracing import export_onnx

    before, _ = export_onnx(make_net(8), ModelSpec("fcn8s", 8, 0.0625, 5, tuple("abcde"), default_palette(5)))
    after = run_onnxsim(before)
    assert len(after.graph.node) < len(before.graph.node) + 1
    assert list(after.metadata_props) == list(before.metadata_props)
    assert after.graph.output[0].type == before.graph.output[0].type
    old, new = (OnnxRuntimeBackend(model.SerializeToString()) for model in (before, after))
    for size in [(1, 3, 1, 1), (2, 3, 65, 97), (1, 3, 31, 32)]:
        image = np.random.default_rng(0).normal(size=size).astype(np.float32)
        np.testing.assert_allclose(
            new.infer({"image": image})["logits"], old.infer({"image": image})["logits"], rtol=1e-5, atol=1e-5
        )


def test_a_crash_of_onnxsim_is_a_failure(exported, monkeypatch):
    def crash(*args, **kwargs):
        return subprocess.CompletedProcess(args, -11, "", "Segmentation fault")

    monkeypatch.setattr(module.subprocess, "run", crash)
    with pytest.raises(InputError, match="exit status -11: Segmentation fault"):
        run_onnxsim(onnx.load(exported("fcn8s")))


def test_a_simplifier_that_freezes_a_dimension_is_a_failure(exported, monkeypatch):
    def freeze(command, **kwargs):
        model = onnx.load(command[-3])
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
        onnx.save(model, command[-2])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", freeze)
    with pytest.raises(InputError, match="onnxsim changed the model's outputs"):
        run_onnxsim(onnx.load(exported("fcn8s")))
