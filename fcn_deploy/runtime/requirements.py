"""What an engine needs of the CPU that runs it, by its sidecar: checked before a library sees the engine."""

from __future__ import annotations

from fcn_deploy.artifacts.sidecar import Sidecar
from fcn_deploy.errors import ArtifactError
from fcn_deploy.runtime import cpu


def check_cpu(sidecar: Sidecar, engine: object) -> None:
    """Checks that this machine's CPU has what an engine needs.

    Args:
        sidecar: Of the engine.
        engine: What to call it in an error.

    Raises:
        ArtifactError: Full 8-bit weights would saturate on this CPU, or it does not multiply in bfloat16.
    """
    precision = sidecar.precision
    if "int8" in precision.layers.values() and sidecar.target.get("cpu") == "vnni":
        require_vnni(engine)
    if "bf16" in (precision.requested, precision.base) and cpu.has_bf16() is False:
        raise no_bf16(engine)


def require_vnni(engine: object) -> None:
    """Checks that 8-bit products do not saturate on this CPU.

    Raises:
        ArtifactError: They do, or the system does not say.
    """
    vnni = cpu.has_vnni()
    if not vnni:
        raise ArtifactError(
            f"{engine or 'the engine'} was built for CPUs with VNNI, whose 8-bit products do not saturate",
            got="a CPU without VNNI" if vnni is False else "a system that does not say what its CPU has",
            fix='build it with `target_cpu="generic"`, or run it on a CPU with VNNI',
        )


def no_bf16(engine: object) -> ArtifactError:
    """Returns the error of an engine in bfloat16 on a CPU that does not multiply in it."""
    return ArtifactError(
        f"{engine} computes in BF16",
        got="a CPU without BF16 instructions",
        expected="a CPU with AVX-512 BF16 or AMX, or an Arm CPU with BF16",
        fix='build it with `precision="fp32"`, or INT8 with `base="fp32"`, or run it on such a CPU',
    )
