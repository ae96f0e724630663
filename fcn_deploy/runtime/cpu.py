"""What this machine's CPU can do that an engine may depend on."""

from __future__ import annotations

import functools
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

# 8-bit dot products that add up in 32 bits: on x86 AVX-512 VNNI and AVX-VNNI, on Arm the dot-product extension.
# Without them ONNX Runtime's x86 kernels add pairs of products in 16 bits, which saturates full 8-bit weights.
_WIDE_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})


@functools.cache
def cpu_features() -> frozenset[str] | None:
    """Returns the feature flags of the first core, or None where the system does not list them."""
    if not _CPUINFO.is_file():
        return None
    for line in _CPUINFO.read_text().splitlines():
        key, _, flags = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(flags.split())
    return None


def has_vnni() -> bool | None:
    """Returns whether 8-bit products are summed without saturation; None where it cannot be told."""
    features = cpu_features()
    return None if features is None else bool(features & _WIDE_DOT_PRODUCTS)
