"""What TensorRT 10 and 11 are asked for, written down by a fake; the real calls are made by TensorRT-RTX elsewhere."""

import sys
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.tensorrt import builder
from fcn_deploy.engines.tensorrt.builder import build_tensorrt
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.tensorrt.profiles import ImageProfile
from fcn_deploy.errors import DependencyError, InputError, UsageError
from fcn_deploy.progress import Silent
from fcn_deploy.runtime.tensorrt.driver import Gpu
from fcn_deploy.runtime.tensorrt.flavor import find_flavor
from fcn_deploy.workflows.backends import choose_backend
from tests.support.fake_builder import fake_tensorrt

SHAPES = (ImageShape(1, 32, 48), ImageShape(2, 64, 64), ImageShape(4, 96, 128))
GPU = Gpu(0, "a GPU", "8.7", 8 << 30)


@pytest.fixture(params=["10.3.0", "11.4.1"])
def asked(request, monkeypatch):
    """Puts a version of TensorRT in place; what the version is asked for."""
    fake, asked = fake_tensorrt(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return asked


@pytest.fixture
def build(model):
    def build(precision="fp16", gpus=lambda: (GPU,), used=None, **options):
        options = TensorRTConfig((ImageProfile(*SHAPES),), **options)
        return build_tensorrt(find_flavor("tensorrt"), model("fcn8s"), BuildConfig(precision), options, used, gpus=gpus)

    return build


def test_the_network_is_strongly_typed_and_no_builder_flag_says_a_precision(asked, build, caplog):
    engine = build("fp32")
    assert engine.data == b"a plan"
    assert asked[0] == ("network", 2)
    assert ("clear", "TF32") in asked
    assert not [each for each in asked if each[0] == "set"]
    assert ("profile", "image", (1, 32, 48, 3), (2, 64, 64, 3), (4, 96, 128, 3)) in asked
    assert [value.name for name, value, *_ in asked if name == "profiling_verbosity"] == ["DETAILED"]
    assert engine.sidecar.target == {"cpu": "generic", "gpu": ["8.7"]}
    assert "tensorrt: a fake is as fast as it is wrong" in caplog.text


def test_the_engine_is_for_the_gpu_that_it_is_built_on(asked, build, monkeypatch):
    current = []

    class OneOfTwo:
        def __init__(self, index):
            self.index = index

        @contextmanager
        def current(self):
            current.append((self.index, threading.current_thread().name))
            yield

    monkeypatch.setattr(builder, "Device", OneOfTwo)
    two = (GPU, replace(GPU, index=1, name="another", compute_capability="8.9"))
    assert build(gpus=lambda: two, device=1).sidecar.target["gpu"] == ["8.9"]
    # The builder works in a thread of its own, and each thread has its own current GPU.
    assert {index for index, _ in current} == {1}
    assert len({thread for _, thread in current}) == 2
    assert build(gpus=lambda: two).sidecar.target["gpu"] == ["8.7"]
    with pytest.raises(DependencyError, match="there is no GPU 2; got 2, counted from 0"):
        build(gpus=lambda: two, device=2)
    with pytest.raises(UsageError, match="bad `device`; got -1"):
        build(device=-1)


def test_tf32_is_permitted_by_a_flag_of_the_builder_after_it_was_cleared(asked, build):
    sidecar = build("fp32", tf32=True).sidecar
    assert [each for each in asked if each[1] == "TF32"] == [("clear", "TF32"), ("set", "TF32")]
    assert sidecar.precision.tf32 is True
    assert (sidecar.precision.requested, sidecar.precision.gated_as) == ("fp32", "tf32")


def test_what_the_gpu_of_this_machine_lacks_is_refused_before_the_library_is_asked(asked, build, ranges):
    with pytest.raises(DependencyError) as caught:
        build("fp8", used=ranges("fcn8s"))
    assert caught.value.what == 'the GPU of this machine does not have what `precision="fp8"` needs'
    assert caught.value.got == "a GPU, compute capability 8.7"
    assert caught.value.expected == "compute capability 8.9 or newer"
    old = (replace(GPU, compute_capability="7.2"),)
    for options in ({"precision": "bf16"}, {"precision": "fp32", "tf32": True}):
        with pytest.raises(DependencyError, match=r"compute capability 7.2; expected compute capability 8.0 or newer"):
            build(gpus=lambda: old, **options)
    assert asked == []


@pytest.mark.parametrize("capability", ["8.9", "9.0", "10.0", "11.0", "12.0"])
def test_gpus_from_ada_on_have_fp8(asked, build, ranges, capability):
    gpu = replace(GPU, compute_capability=capability)
    sidecar = build("fp8", used=ranges("fcn8s"), gpus=lambda: (gpu,)).sidecar
    assert sidecar.precision.requested == "fp8"
    assert sidecar.target["gpu"] == [capability]


def test_an_engine_for_all_gpus_from_ampere_on_has_bf16_and_no_fp8(asked, build, ranges):
    assert build("bf16", hardware_compatibility=True).sidecar.target["gpu"] == ["8.0"]
    with pytest.raises(UsageError, match=r"got compute capability 8.0 and newer; .*leave out `hardware_compatibility`"):
        build("fp8", used=ranges("fcn8s"), hardware_compatibility=True)


def test_every_option_reaches_the_builder(asked, build):
    sidecar = build(
        workspace=64, builder_optimization_level=5, hardware_compatibility=True, version_compatible=True
    ).sidecar
    assert ("WORKSPACE", 64 << 20) in asked
    assert ("builder_optimization_level", 5) in asked
    assert ("set", "VERSION_COMPATIBLE") in asked
    assert [value.name for name, value, *_ in asked if name == "hardware_compatibility_level"] == ["AMPERE_PLUS"]
    assert sidecar.target == {
        "cpu": "generic",
        "gpu": ["8.0"],
        "version_compatible": True,
        "hardware_compatible": True,
    }


def test_a_timing_cache_is_read_written_and_refused_where_it_does_not_fit(asked, build, tmp_path):
    cache = tmp_path / "timings"
    build(timing_cache=cache)
    build(timing_cache=cache)
    assert cache.read_bytes() == b"+timings+timings"
    cache.write_bytes(b"of another GPU")
    with pytest.raises(InputError, match="not written for this GPU and library"):
        build(timing_cache=cache)
    assert cache.read_bytes() == b"of another GPU"


def test_auto_takes_the_first_flavor_that_can_build_here(asked, tmp_path):
    assert choose_backend("auto", tmp_path / "net.engine", Silent(), gpus=lambda: (GPU,)) == "tensorrt"


def test_without_a_gpu_the_library_is_not_asked(asked, build):
    def none():
        raise DependencyError("no NVIDIA driver was found")

    with pytest.raises(DependencyError, match="no NVIDIA driver"):
        build(gpus=none)
    assert not asked


def test_a_version_that_is_too_old_is_refused(monkeypatch, build):
    fake, _ = fake_tensorrt("8.6.1")
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    with pytest.raises(DependencyError, match=r"too old; got 8.6.1; expected 10.3 or newer"):
        build()
