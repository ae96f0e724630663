import numpy as np
import pytest
import torch

from fcn_deploy.errors import ClosedError, InputError, UsageError
from fcn_deploy.models.backend import TorchBackend


def test_the_backend_returns_what_the_module_returns(make_net):
    net = make_net(8)
    image = np.random.default_rng(0).normal(size=(2, 3, 33, 40)).astype(np.float32)
    image.setflags(write=False)
    with TorchThreads(), torch.inference_mode():
        expected = net(torch.from_numpy(image.copy())).numpy()
    found = TorchBackend(net, 5).infer({"image": image})["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


class TorchThreads:
    """Restores torch's thread count, whatever a test does to it."""

    def __enter__(self):
        self.before = torch.get_num_threads()

    def __exit__(self, *exc):
        torch.set_num_threads(self.before)


def test_threads_are_set_for_the_inference_only(make_net):
    seen = []
    net = make_net(32)
    net.register_forward_hook(lambda *args: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    TorchBackend(net, 5, threads=1).infer({"image": np.zeros((1, 3, 8, 8), np.float32)})
    assert seen == [1]
    assert torch.get_num_threads() == before


def test_bad_input_bad_threads_and_use_after_close_are_refused(make_net):
    backend = TorchBackend(make_net(8), 5)
    with pytest.raises(InputError, match="wrong dtype"):
        backend.infer({"image": np.zeros((1, 3, 8, 8), np.float64)})
    with pytest.raises(UsageError):
        TorchBackend(make_net(8), 5, threads=0)
    with backend:
        pass
    with pytest.raises(ClosedError):
        backend.infer({"image": np.zeros((1, 3, 8, 8), np.float32)})
