"""The features of this machine's CPU that an engine may depend on."""

from __future__ import annotations

import functools
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

# 8-bit dot products that are summed in 32 bits: AVX-512 VNNI and AVX-VNNI on x86, the dot-product extension on Arm.
# Without them, ONNX Runtime's x86 kernels add pairs of products in 16 bits, which saturates with full 8-bit weights.
_WIDE_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})

# Products of bfloat16 that are summed in float32: AVX-512 BF16 and AMX on x86, the bfloat16 extension on Arm.
_BF16_PRODUCTS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@functools.cache
def cpu_features(cpuinfo: Path = _CPUINFO) -> frozenset[str] | None:
    """Returns the feature flags of the first core, or None if the system does not list them.

    Args:
        cpuinfo: Where Linux lists them; read once in a process.
    """
    if not cpuinfo.is_file():
        return None
    for line in cpuinfo.read_text().splitlines():
        key, _, flags = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(flags.split())
    return None


def has_vnni(cpuinfo: Path = _CPUINFO) -> bool | None:
    """Returns whether 8-bit products are summed without saturation; None if the system does not say.

    Args:
        cpuinfo: Where Linux lists the features of the CPU.
    """
    features = cpu_features(cpuinfo)
    return None if features is None else bool(features & _WIDE_DOT_PRODUCTS)


def has_bf16(cpuinfo: Path = _CPUINFO) -> bool | None:
    """Returns whether the CPU multiplies in bfloat16; None if the system does not say.

    Args:
        cpuinfo: Where Linux lists the features of the CPU.
    """
    features = cpu_features(cpuinfo)
    return None if features is None else bool(features & _BF16_PRODUCTS)
