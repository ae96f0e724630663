"""What an engine needs of the CPU is checked by its sidecar, before a library sees it."""

import sys
from dataclasses import replace

import pytest

from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.sidecar import EngineFile, Sidecar, Source
from fcn_deploy.errors import ArtifactError, DependencyError
from fcn_deploy.runtime import cpu
from fcn_deploy.runtime.requirements import check_cpu, require_fast_math


@pytest.fixture
def needing(make_spec):
    def make(requested="int8", base="fp32", target="generic", method=None, backend="openvino"):
        layers = {"conv1": base, "conv2": requested}
        return Sidecar(
            EngineFile("net.onnx", "0", 1),
            backend,
            "2026.4.1",
            "image",
            Precision(requested, base, method, layers),
            make_spec(),
            Source("0"),
            {"cpu": target, "gpu": []},
        )

    return make


@pytest.mark.parametrize("answer", [True, None])
@pytest.mark.parametrize(("requested", "base"), [("bf16", "bf16"), ("int8", "bf16"), ("fp32", "fp32")])
def test_a_cpu_that_has_bf16_or_does_not_say_may_try(needing, monkeypatch, answer, requested, base):
    monkeypatch.setattr(cpu, "has_bf16", lambda: answer)
    check_cpu(needing(requested, base), "net.onnx")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "onnxruntime"])
@pytest.mark.parametrize(("requested", "base"), [("bf16", "bf16"), ("fp8", "bf16")])
def test_bf16_on_a_gpu_and_its_simulation_need_nothing_of_the_cpu(needing, monkeypatch, backend, requested, base):
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    check_cpu(needing(requested, base, backend=backend), "net.engine")


@pytest.mark.parametrize(("requested", "base"), [("bf16", "bf16"), ("int8", "bf16")])
def test_an_engine_in_bf16_is_refused_on_a_cpu_without_it(needing, monkeypatch, requested, base):
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    with pytest.raises(ArtifactError, match=r"net\.onnx computes in BF16; got a CPU without BF16") as caught:
        check_cpu(needing(requested, base), "net.onnx")
    assert caught.value.exit_code == 5
    check_cpu(needing("int8", "fp32"), "net.onnx")
    check_cpu(needing("fp32", "fp32"), "net.onnx")


def test_full_8_bits_need_a_cpu_where_they_are_exact(needing, exact_8_bits):
    exact_8_bits(False)
    with pytest.raises(ArtifactError, match="is for CPUs with VNNI and for 64-bit Arm"):
        check_cpu(needing(target="vnni"), "net.onnx")
    check_cpu(needing("fp32", target="vnni"), "net.onnx")
    check_cpu(needing(), "net.onnx")


def test_a_cpu_of_which_nothing_is_known_is_named(needing, exact_8_bits, monkeypatch):
    exact_8_bits(None)
    monkeypatch.setattr(cpu, "machine", lambda: "riscv64")
    with pytest.raises(ArtifactError, match=r"64-bit Arm.*got a system that does not say what its CPU \(riscv64\) has"):
        check_cpu(needing(target="vnni"), "net.onnx")


def test_on_arm_openvino_gets_no_weights_that_may_be_128_below_zero(needing, exact_8_bits, monkeypatch):
    exact_8_bits(True)
    foreign = needing(target="vnni", method="given")
    check_cpu(foreign, "net.onnx")
    monkeypatch.setattr(cpu, "is_arm64", lambda: True)
    with pytest.raises(ArtifactError, match=r'may be -128.*fix: build it with `backend="onnxruntime"`'):
        check_cpu(foreign, "net.onnx")
    check_cpu(replace(foreign, backend="onnxruntime"), "net.onnx")
    check_cpu(needing(target="vnni", method="entropy"), "net.onnx")
    check_cpu(needing(target="generic", method="given"), "net.onnx")


@pytest.mark.parametrize(
    ("arm64", "system", "bf16", "words"),
    [
        (False, "linux", True, r"no fast math for this machine; got a CPU of the kind \w+, linux"),
        (True, "darwin", None, "got a CPU of the kind .*darwin; expected a 64-bit Arm CPU with BF16, under Linux"),
        (True, "linux", False, "got a CPU without BF16 instructions"),
        (True, "linux", None, "got a CPU without BF16 instructions"),
    ],
)
def test_fast_math_needs_arm_with_bf16_under_linux(monkeypatch, arm64, system, bf16, words):
    monkeypatch.setattr(cpu, "is_arm64", lambda: arm64)
    monkeypatch.setattr(cpu, "has_bf16", lambda: bf16)
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(DependencyError, match=words) as caught:
        require_fast_math()
    assert caught.value.exit_code == 7


def test_fast_math_is_taken_on_arm_with_bf16_under_linux(monkeypatch):
    monkeypatch.setattr(cpu, "is_arm64", lambda: True)
    monkeypatch.setattr(cpu, "has_bf16", lambda: True)
    monkeypatch.setattr(sys, "platform", "linux")
    require_fast_math()
