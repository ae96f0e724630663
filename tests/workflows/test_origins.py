import inspect
from pathlib import Path

import pytest

import fcn_deploy as fd
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.app import cli
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.evaluation.gates import Criterion, GateOption
from fcn_deploy.workflows.origins import command_line, layer_costs, versions


def repeated(function=fd.deploy, **given):
    """The command line of a call, and what the command line makes of it."""
    parameters = inspect.signature(function).parameters
    arguments = {name: parameter.default for name, parameter in parameters.items()} | given
    name, positional = function.__name__, ("bundle",) if function is fd.finish else ()
    words = command_line(name, function, arguments, positional)
    assert words[:2] == ("fcn-deploy", name)
    return words[2:], cli.get_command(None, name).make_context(name, list(words[2:])).params


def test_a_call_of_deploy_is_a_command_that_can_be_repeated():
    given = {
        "weights": Path("nets/fcn8s.pth"),
        "calib_data": "frames",
        "output": "out",
        "int8": True,
        "num_classes": 5,
        "mean": (0.1, 0.2, -0.3),
        "scale": 1 / 255,
        "calib_size": (360, 480),
        "ignore_index": (255, 7),
        "label_map": {255: 1, "7": None},
        "opt_shape": [ImageShape(1, 96, 128), "2x64x64"],
        "gate": ["agreement>=98%", GateOption(Criterion("error", 1e-3), "fp32")],
        "weights_ignore": "aux.*",
        "percentile": (50, 99.5),
        "report": False,
        "resume": True,
        "threads": 2,
    }
    words, params = repeated(**given)
    assert {"--no-report", "--int8"} <= set(words)
    assert "--resume" not in words
    assert params["weights"] == Path("nets/fcn8s.pth")
    assert params["calib_size"] == (360, 480)
    assert params["mean"] == (0.1, 0.2, -0.3)
    assert params["scale"] == 1 / 255
    assert tuple(params["ignore_index"]) == (255, 7)
    assert params["label_map"] == "255=1,7=ignore"
    assert [str(shape) for shape in params["opt_shape"]] == ["1x96x128", "2x64x64"]
    assert [str(gate) for gate in params["gate"]] == ["agreement>=98%", "fp32:error<=0.001"]
    assert params["weights_ignore"] == ("aux.*",)
    assert tuple(params["percentile"]) == (50, 99.5)
    assert params["report"] is False
    assert params["threads"] == 2


def test_every_option_of_deploy_can_be_written(tmp_path):
    """No parameter is forgotten when it becomes an option: each with a value of its kind."""
    values = {
        **{name: True for name, each in inspect.signature(fd.deploy).parameters.items() if each.default is False},
        "variant": "fcn8s",
        "model": "nets:make",
        "size_divisor": 8,
        "pad_mode": "zero",
        "logits": 0,
        "resize_logits": "nearest",
        "weights_key": "k",
        "weights_prefix": "p",
        "class_names": "c.csv",
        "normalization": "caffe",
        "std": (1, 2, 3),
        "input_padding": 0,
        "color": "bgr",
        "threshold": 0.5,
        "max_images": 3,
        "calib_method": "mse",
        "io": "tensor",
        "backend": "openvino",
        "target_cpu": "vnni",
        "min_shape": "8x8",
        "max_shape": ("9x9",),
        "data": "images",
        "labels": "labels",
        "label_suffix": "_gt",
        "require_speedup": 1.2,
        "warmup": 1,
        "duration": 2,
        "iterations": 3,
    }
    words, params = repeated(weights="w.pth", calib_data="frames", output=tmp_path / "out", **values)
    for name in values:
        assert name == "resume" or f"--{name.replace('_', '-')}" in words, name
    assert params["input_padding"] == 0
    assert params["output"] == Path("out")


@pytest.mark.parametrize("outside", ["../me/secret/fcn8s.pth", "a/../../me/secret/fcn8s.pth", "./../../me/fcn8s.pth"])
def test_relative_paths_that_lead_out_of_the_folder_are_cut_too(outside):
    words, _ = repeated(weights=outside, calib_data="a/frames", output="../../out")
    assert words == ("--weights", "fcn8s.pth", "--calib-data", "a/frames", "-o", "../../out")


def test_paths_outside_the_current_folder_are_cut_to_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, _ = repeated(weights="/home/me/secret/fcn8s.pth", calib_data=tmp_path / "a" / "frames", output="../out")
    assert words == ("--weights", "fcn8s.pth", "--calib-data", "a/frames", "-o", "../out")


def test_a_folder_that_was_opened_is_named(photo_folder):
    words, _ = repeated(weights="w.pth", calib_data=ImageFolder.open(photo_folder), output="out")
    assert words[3] == photo_folder.name


def test_finish_is_repeated_with_its_bundle():
    words, params = repeated(fd.finish, bundle="bundle", shape=(24, 36), device=0)
    assert words == ("bundle", "--device", "0", "--shape", "24x36")
    assert params["shape"] == (24, 36)


def test_versions_are_those_of_what_is_installed():
    assert set(versions(("numpy", "no-such-package-of-anybody"))) == {"numpy"}


@pytest.mark.parametrize("shape", [(32, 48), (33, 47)])
def test_layers_cost_what_they_do_for_the_image(exported, shape):
    layers = layer_costs(fd.load_exported(exported("fcn8s")), shape)
    assert layers[0].name == "conv1_1"
    assert layers[0].output[-2:] == shape
    assert layers[0].macs == layers[0].output[1] * shape[0] * shape[1] * 27
