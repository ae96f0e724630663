"""`--provider` and `--device`, and who among several engines takes them."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.errors import DependencyError, UsageError
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.workflows import references
from fcn_deploy.workflows.references import opened
from tests.support import tiny_plans

QUICK = ("--duration", 0, "--iterations", 1, "--warmup", 0)


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """What segmenters are opened with, by name; none is opened."""
    options_by_name = {}
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "b.onnx", "b.engine", "b.plan"):
        Path(name).write_bytes(b"\x08\x0a")

    class Opened:
        spec = fixed_shape = None

        @classmethod
        def open(cls, name, options):
            options_by_name[str(name)] = {option: getattr(options, option) for option in options.asked}
            return cls()

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(references, "Segmenter", Opened)
    return options_by_name


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr("fcn_deploy.runtime.onnxruntime.ort.get_available_providers", lambda: ["CPUExecutionProvider"])


def test_each_engine_gets_the_options_that_are_its_own(seen):
    with opened(["a.onnx", "b.engine"], RuntimeOptions(threads=2, provider="cuda", device=1)):
        assert seen == {"a.onnx": {"threads": 2, "provider": "cuda", "device": 1}, "b.engine": {"device": 1}}
    with opened(["a.onnx", "b.plan"], RuntimeOptions(provider="cpu", device=1, allow_host_code=True)):
        assert seen["a.onnx"] == {"provider": "cpu"}
        assert seen["b.plan"] == {"device": 1, "allow_host_code": True}


def test_what_is_named_twice_is_opened_once(seen):
    with opened(["a.onnx", "a.onnx"]) as (first, second):
        assert first is second


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["a.onnx"], {"device": 0}, "`device` is for TensorRT plans"),
        (["a.engine"], {"provider": "cuda"}, "`provider` is for engines of ONNX Runtime and exported models; got a.e"),
        (["a.engine", "b.plan"], {"threads": 2}, "`threads` is for ONNX engines and models"),
        (["a.onnx"], {"allow_host_code": True}, "`allow_host_code` is for TensorRT plans; got a.onnx"),
        (
            ["pytorch:w.pth"],
            {"provider": "cpu"},
            "`provider` is for engines of ONNX Runtime and exported models; got py",
        ),
        (["pytorch:w.pth"], {"device": 0}, "`device` is for TensorRT plans"),
    ],
)
def test_an_option_that_no_engine_takes_is_a_usage_error(seen, names, options, words):
    with pytest.raises(UsageError, match=re.escape(words)), opened(names, RuntimeOptions(**options)):
        pytest.fail("something was opened")
    assert seen == {}


def test_the_commands_refuse_a_provider_that_is_not_there(call, exported, photo_folder, tmp_path, without_cuda):
    model = exported("fcn8s")
    cuda = ("--provider", "cuda", "--device", 0)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
    labels = shutil.copytree(photo_folder, tmp_path / "labels")
    commands = [
        ("benchmark", model, "--shape", "32x32", *QUICK),
        ("verify", model, "--reference", exported("fcn16s"), "--data", photo_folder),
        ("evaluate", model, "--data", photo_folder, "--labels", labels),
        ("predict", model, tmp_path / "image.png", "-o", tmp_path / "out"),
    ]
    for command in commands:
        assert "has no cuda provider; got CPUExecutionProvider" in call(*command, *cuda, code=7).err


def test_the_cpu_may_be_named(call, exported, photo_folder):
    model = exported("fcn8s")
    call("benchmark", model, "--shape", "32x32", *QUICK, "--provider", "cpu", "--json")
    assert "--device is for TensorRT plans" in call("benchmark", model, "--shape", "32x32", "--device", 1, code=2).err
    call("benchmark", model, "--shape", "32x32", "--provider", "gpu", code=2)


def test_a_plan_without_a_driver_is_exit_7(call, exported, tmp_path, monkeypatch, photo_folder):
    def find_gpus():
        raise DependencyError("no NVIDIA driver was found")

    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    plan = tiny_plans.build(trt, "tensorrt-rtx", tmp_path / "tiny.engine")
    monkeypatch.setattr("fcn_deploy.runtime.tensorrt.backend.find_gpus", find_gpus)
    assert "no NVIDIA driver was found" in call("benchmark", plan, "--shape", "32x32", *QUICK, code=7).err
    verify = ("verify", plan, "--reference", exported("fcn8s"), "--data", photo_folder)
    assert "no NVIDIA driver was found" in call(*verify, code=7).err


def test_what_others_are_compared_with_computes_without_fast_math(seen):
    with opened(["a.onnx", "b.onnx"], RuntimeOptions(threads=1, fast_math=True), reference="b.onnx"):
        assert seen == {"a.onnx": {"threads": 1, "fast_math": True}, "b.onnx": {"threads": 1}}


def test_verify_and_evaluate_open_only_the_engine_with_fast_math(call, exported, photo_folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("fcn_deploy.runtime.onnxruntime.require_fast_math", lambda: asked.append(True))
    labels = tmp_path / "labels"
    labels.mkdir()
    for path in photo_folder.iterdir():
        with Image.open(path) as photo:
            Image.new("L", photo.size).save(labels / f"{path.stem}.png")
    pair = (exported("fcn8s"), "--reference", exported("fcn16s"), "--data", photo_folder, "--fast-math")
    call("verify", *pair, code=3)  # another net
    assert len(asked) == 1
    call("evaluate", *pair, "--labels", labels)
    assert len(asked) == 2


def test_fast_math_that_this_machine_does_not_have_is_exit_7(call, exported, monkeypatch):
    monkeypatch.setattr("fcn_deploy.runtime.cpu.is_arm64", lambda: False)
    said = call("benchmark", exported("fcn8s"), "--shape", "32x32", "--fast-math", *QUICK, code=7).err
    assert "ONNX Runtime has no fast math for this machine" in said
    assert "fix: leave out --fast-math" in said
