"""`--provider` and `--device`, and who among several engines takes them."""

import re

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.errors import DependencyError, UsageError
from fcn_deploy.workflows import references as sources
from tests.support import tiny_plans

QUICK = ("--duration", 0, "--iterations", 1, "--warmup", 0)


@pytest.fixture
def opened(monkeypatch):
    """What segmenters are opened with, by name; none is opened."""
    seen = {}

    class Opened:
        spec = fixed_shape = None

        def __init__(self, name, **options):
            seen[str(name)] = {key: value for key, value in options.items() if value is not None}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(sources, "Segmenter", Opened)
    return seen


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr("fcn_deploy.runtime.onnxruntime.ort.get_available_providers", lambda: ["CPUExecutionProvider"])


def test_each_engine_gets_the_options_that_are_its_own(opened):
    sources.open_all(["a.onnx", "b.engine"], threads=2, provider="cuda", device=1)
    assert opened == {
        "a.onnx": {"threads": 2, "provider": "cuda", "device": 1, "allow_host_code": False},
        "b.engine": {"device": 1, "allow_host_code": False},
    }
    sources.open_all(["a.onnx", "b.plan"], provider="cpu", device=1, allow_host_code=True)
    assert opened["a.onnx"] == {"provider": "cpu", "allow_host_code": False}
    assert opened["b.plan"] == {"device": 1, "allow_host_code": True}


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["a.onnx"], {"device": 0}, "nothing here takes --device; got a.onnx; expected a TensorRT plan, or --provider"),
        (["a.engine"], {"provider": "cuda"}, "nothing here takes --provider; got a.engine; expected an ONNX engine"),
        (["a.engine", "b.plan"], {"threads": 2}, "nothing here takes --threads; got a.engine, b.plan"),
        (
            ["a.onnx"],
            {"allow_host_code": True},
            "nothing here takes --allow-host-code; got a.onnx; expected a TensorRT",
        ),
        (["pytorch:w.pth"], {"provider": "cpu"}, "nothing here takes --provider; got pytorch:w.pth"),
    ],
)
def test_an_option_that_no_engine_takes_is_a_usage_error(opened, names, options, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        sources.open_all(names, **options)
    assert opened == {}


def test_a_checkpoint_does_not_run_on_a_gpu():
    for options in ({"provider": "cuda"}, {"device": 0}, {"allow_host_code": True}):
        with pytest.raises(UsageError, match="checkpoints run on the CPU"):
            sources.open_reference("pytorch:w.pth", **options)


def test_the_commands_refuse_a_provider_that_is_not_there(call, exported, photo_folder, tmp_path, without_cuda):
    model = exported("fcn8s")
    cuda = ("--provider", "cuda", "--device", 0)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
    commands = [
        ("benchmark", model, "--shape", "32x32", *QUICK),
        ("verify", model, "--reference", model, "--data", photo_folder),
        ("evaluate", model, "--data", photo_folder, "--labels", photo_folder),
        ("predict", model, tmp_path / "image.png", "-o", tmp_path / "out"),
    ]
    for command in commands:
        assert "has no cuda provider; got CPUExecutionProvider" in call(*command, *cuda, code=7).err


def test_the_cpu_may_be_named(call, exported, photo_folder):
    model = exported("fcn8s")
    call("benchmark", model, "--shape", "32x32", *QUICK, "--provider", "cpu", "--json")
    assert "nothing here takes --device" in call("benchmark", model, "--shape", "32x32", "--device", 1, code=2).err
    call("benchmark", model, "--shape", "32x32", "--provider", "gpu", code=2)


def test_a_plan_without_a_driver_is_exit_7(call, tmp_path, monkeypatch, photo_folder):
    def find_gpus():
        raise DependencyError("no NVIDIA driver was found")

    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    plan = tiny_plans.build(trt, "tensorrt-rtx", tmp_path / "tiny.engine")
    monkeypatch.setattr("fcn_deploy.runtime.tensorrt.backend.find_gpus", find_gpus)
    assert "no NVIDIA driver was found" in call("benchmark", plan, "--shape", "32x32", *QUICK, code=7).err
    assert "no NVIDIA driver was found" in call("verify", plan, "--reference", plan, "--data", photo_folder, code=7).err
