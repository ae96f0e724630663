import pytest
import torch
from torch import nn

import fcn_deploy as fd
from fcn_deploy.errors import InputError
from fcn_deploy.graph import size_limit
from fcn_deploy.models import FCN
from fcn_deploy.models.size import Weights, check_size, weights_size
from fcn_deploy.workflows import exporting

HUGE = "tests.support.custom_nets:huge"


def test_the_size_is_that_of_parameters_and_buffers_and_shared_ones_count_once():
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5))
    net.append(net[0])
    assert weights_size(net) == 4 * (15 + 5 + 4 * 5) + 8
    assert weights_size(nn.Sequential(net, nn.LazyConv2d(4, 1))) == weights_size(net)


def test_a_net_of_more_than_2_gb_is_refused_and_the_message_says_how_large_it_is():
    with torch.device("meta"):
        net = FCN(8, 21, 6.0)
    message = (
        r"the net is too large for one ONNX file; got 4\.\d GB of weights; expected less than 2 GB; fix: .*smaller net"
    )
    with pytest.raises(InputError, match=message):
        check_size(net)
    check_size(FCN(8, 21, 0.0625))


@pytest.mark.parametrize("command", ["export", "deploy"])
def test_a_custom_net_is_refused_before_its_weights_are_read(command, tmp_path, photo_folder):
    (weights := tmp_path / "net.pth").write_bytes(b"PK\x03\x04 not read")
    arguments = [weights] if command == "export" else [weights, photo_folder, tmp_path / "out"]
    with pytest.raises(InputError, match=r"the net is too large for one ONNX file; got 2\.4 GB of weights"):
        getattr(fd, command)(*arguments, model=HUGE)
    assert not (tmp_path / "out").exists()


def test_a_published_net_is_refused_before_it_is_traced(checkpoint_file, monkeypatch):
    monkeypatch.setattr(size_limit, "LARGEST", 10**5)
    monkeypatch.setattr(exporting, "_traced", lambda *_: pytest.fail("the export began"))
    with pytest.raises(InputError, match=r"the net is too large for one ONNX file"):
        fd.export(checkpoint_file("fcn8s"), on_loaded=lambda _: pytest.fail("other checks came first"))


@pytest.mark.parametrize("kept", ["nothing", "the net", "a layer"])
def test_weights_are_given_back_even_if_others_hold_them_but_not_if_somebody_keeps_a_part_of_the_net(kept):
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5))
    held = [*net.parameters(), *net.buffers()]
    weights = Weights(net)
    keeper = {"nothing": None, "the net": net, "a layer": net[0]}[kept]
    del net
    weights.release()
    given_back = sum(tensor.untyped_storage().nbytes() for tensor in held) == 0
    assert given_back == (keeper is None)
