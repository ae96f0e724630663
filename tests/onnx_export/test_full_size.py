"""The net at its published size."""

import numpy as np
import pytest
import torch

from fcn_deploy.evaluation.parity import relative_error
from fcn_deploy.models import load_model, read_checkpoint
from fcn_deploy.models.backend import TorchBackend
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.workflows.exporting import export


@pytest.mark.slow
def test_fcn8s_at_full_width_and_512x512_is_within_1e_5(make_net, tmp_path):
    weights, output = tmp_path / "fcn8s.pth", tmp_path / "fcn8s.onnx"
    torch.save(make_net(8, classes=21, width=1.0).state_dict(), weights)
    assert export(weights, output=output).error <= 1e-5
    image = np.random.default_rng(0).normal(size=(1, 3, 512, 512)).astype(np.float32)
    expected = TorchBackend(load_model(read_checkpoint(weights)), 21).infer({"image": image})["logits"]
    found = OnnxRuntimeBackend(output).infer({"image": image})["logits"]
    assert found.shape == (1, 21, 512, 512)
    assert relative_error(expected, found) <= 1e-5
