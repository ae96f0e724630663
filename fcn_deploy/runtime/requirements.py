"""What an engine needs of the CPU that runs it, by its sidecar: checked before a library sees the engine."""

from __future__ import annotations

import sys

from fcn_deploy.artifacts.precision import PREQUANTIZED
from fcn_deploy.artifacts.sidecar import Sidecar
from fcn_deploy.errors import ArtifactError, DependencyError
from fcn_deploy.runtime import cpu
from fcn_deploy.runtime.openvino.library import NAME as OPENVINO


def check_cpu(sidecar: Sidecar, engine: object) -> None:
    """Checks that this machine's CPU has what an engine needs.

    Args:
        sidecar: Of the engine.
        engine: What to call it in an error.

    Raises:
        ArtifactError: Full 8-bit weights would saturate on this CPU, or weights of -128 might; or it does not multiply
            in bfloat16.
    """
    precision = sidecar.precision
    if "int8" in precision.layers.values() and sidecar.target.get("cpu") == "vnni":
        require_exact_8_bits(engine)
        _require_converted(sidecar, engine)
    if sidecar.backend == OPENVINO and "bf16" in (precision.requested, precision.base) and cpu.has_bf16() is False:
        raise no_bf16(engine)


def require_exact_8_bits(engine: object) -> None:
    """Checks that weights of all 8 bits, -127..127, give exact results on this CPU.

    Raises:
        ArtifactError: Their products saturate, or that is not known.
    """
    exact = cpu.exact_8_bits()
    if not exact:
        unknown = f"a system that does not say what its CPU ({cpu.machine() or 'unknown'}) has"
        raise ArtifactError(
            f"{engine or 'the engine'} is for CPUs with VNNI and for 64-bit Arm, whose 8-bit products do not saturate",
            got="a CPU without VNNI" if exact is False else unknown,
            fix='build it with `target_cpu="generic"`, or run it on such a CPU',
        )


def _require_converted(sidecar: Sidecar, engine: object) -> None:
    """Refuses, on Arm, weights of -128 that OpenVINO has not been spared; those for ONNX Runtime have none."""
    if cpu.is_arm64() and sidecar.backend == OPENVINO and sidecar.precision.method == PREQUANTIZED:
        raise ArtifactError(
            f"the weights of {engine} are another tool's and may be -128, whose products OpenVINO saturates on Arm",
            got=f"a CPU of the kind {cpu.machine()}",
            fix='build it with `backend="onnxruntime"`, which converts them',
        )


def require_fast_math() -> None:
    """Checks that ONNX Runtime can multiply matrices of FP32 in BF16 here: on 64-bit Arm with BF16, under Linux.

    Raises:
        DependencyError: It cannot, or the system does not say what its CPU has.
    """
    if not (cpu.is_arm64_linux() and cpu.has_bf16()):
        kind = "without BF16 instructions" if cpu.is_arm64_linux() else f"of the kind {cpu.machine()}, {sys.platform}"
        raise DependencyError(
            "ONNX Runtime has no fast math for this machine",
            got=f"a CPU {kind}",
            expected="a 64-bit Arm CPU with BF16, under Linux",
            fix="leave out `fast_math`",
        )


def no_bf16(engine: object) -> ArtifactError:
    """Returns the error of an engine in bfloat16 on a CPU that does not multiply in it."""
    return ArtifactError(
        f"{engine} computes in BF16",
        got="a CPU without BF16 instructions",
        expected="a CPU with AVX-512 BF16 or AMX, or an Arm CPU with BF16",
        fix='build it with `precision="fp32"`, or INT8 with `base="fp32"`, or run it on such a CPU',
    )
