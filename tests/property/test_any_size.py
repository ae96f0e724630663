"""For every H, W >= 1 the exported graph gives what PyTorch gives, exactly H x W."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcn_deploy.evaluation.parity import relative_error
from fcn_deploy.models import load_model, read_checkpoint
from fcn_deploy.models.backend import TorchBackend
from fcn_deploy.models.fcn import VARIANTS
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

SIZE = st.integers(1, 600)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=15, deadline=None)
@given(height=SIZE, width=SIZE, batch=st.integers(1, 3), seed=st.integers(0, 99))
@example(height=1, width=1, batch=1, seed=0)
@example(height=500, width=375, batch=1, seed=0)
@example(height=360, width=480, batch=2, seed=0)
@example(height=600, width=1, batch=3, seed=0)
def test_onnx_equals_pytorch_and_is_as_large_as_the_image(backends, variant, height, width, batch, seed):
    pytorch, onnx = backends(variant)
    image = np.random.default_rng(seed).normal(size=(batch, 3, height, width)).astype(np.float32)
    expected = pytorch.infer({"image": image})["logits"]
    found = onnx.infer({"image": image})["logits"]
    assert found.shape == (batch, 5, height, width)
    assert relative_error(expected, found) <= 1e-5


@pytest.fixture(scope="module")
def backends(exported, checkpoint_file):
    opened = {}

    def open_both(variant):
        if variant not in opened:
            model = load_model(read_checkpoint(checkpoint_file(variant)))
            opened[variant] = TorchBackend(model, 5), OnnxRuntimeBackend(exported(variant))
        return opened[variant]

    return open_both
