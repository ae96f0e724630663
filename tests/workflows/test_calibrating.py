"""The workflow `calibrate`: what it balances, and that every engine is built of the balanced net."""

from dataclasses import replace

import numpy as np
import pytest

import fcn_deploy as fd
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.calibration.observer import Observer
from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import load_exported
from fcn_deploy.quantization.balance import balanceable


@pytest.fixture(scope="module")
def model(exported):
    return load_exported(exported("fcn8s"))


@pytest.fixture(scope="module")
def wild(model, photos):
    """Ranges of the net with scales at random, unlike those that calibration would choose."""
    random = np.random.default_rng(0)
    channels = {str(each.value.name): each.writer.inputs[1].shape[0] for each in balanceable(model.copy().graph)}
    observer = Observer(model, {name: 2 ** random.uniform(-1, 1, count) for name, count in channels.items()}, threads=1)
    for photo in photos:
        observer.add(photo)
    ranges = observer.ranges()
    observer.close()
    return ranges


def test_channels_are_balanced_unless_the_user_says_otherwise(exported, photo_folder, ranges_file, call, tmp_path):
    assert Ranges.load(ranges_file("fcn8s")).scales
    path = tmp_path / "plain.json"
    call("calibrate", exported("fcn8s"), "--calib-data", photo_folder, "--no-balance", "--threads", 1, "-o", path)
    assert not Ranges.load(path).scales
    assert not fd.calibrate(exported("fcn8s"), photo_folder, balance=False, threads=1).scales


def test_noise_balances_nothing(exported):
    noise = fd.calibrate(exported("fcn8s"), random_calibration=True, calib_size="48x64", max_images=1, threads=1)
    assert not noise.scales


@pytest.mark.parametrize(
    ("precision", "backend", "least"),
    [("int8", "onnxruntime", 25), ("int8", "simulation", 25), ("int8", "openvino", 25), ("fp16", "simulation", 50)],
)
def test_an_engine_is_built_of_the_net_that_was_observed(model, wild, photo_folder, precision, backend, least):
    if backend == "openvino":
        pytest.importorskip("openvino")
    engine = fd.build_engine(model, precision=precision, ranges=wild, backend=backend, io="tensor")
    found = fd.verify(engine, model, data=photo_folder, gate="agreement>=1%", threads=1)
    assert found.parity.sqnr > least


def test_ranges_whose_scales_were_lost_give_a_worse_engine(model, wild, photo_folder):
    # What the test above would see of an emitter that forgets to balance.
    engine = fd.build_engine(model, precision="int8", ranges=replace(wild, scales={}), io="tensor")
    found = fd.verify(engine, model, data=photo_folder, gate="agreement>=1%", threads=1)
    assert found.parity.sqnr < 24


def test_scales_of_a_tensor_that_the_net_does_not_have_are_an_input_error(model, wild):
    with pytest.raises(InputError, match="bad scales of tensor nothing"):
        fd.build_engine(model, precision="int8", ranges=replace(wild, scales={"nothing": np.ones(3)}))
