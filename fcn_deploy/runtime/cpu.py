"""The features of this machine's CPU that an engine may depend on."""

from __future__ import annotations

import functools
import os
import platform
import sys
import sysconfig
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

# How Linux, macOS and Windows spell the two kinds of CPU.
_ARM64 = frozenset({"aarch64", "arm64", "win-arm64"})
_X86 = frozenset({"x86_64", "amd64", "i386", "i686", "win-amd64", "win32"})

# On x86, 8-bit dot products that are summed in 32 bits. Without them, ONNX Runtime's and OpenVINO's kernels add pairs
# of products of a uint8 and an int8 in 16 bits, which saturates with full 8-bit weights.
_WIDE_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni"})

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


def machine() -> str:
    """Returns the kind of CPU that this process is compiled for, as the system spells it, in lower case."""
    # Windows names its own CPU to programs for x86 that it emulates on Arm.
    return (sysconfig.get_platform() if os.name == "nt" else platform.machine()).lower()


def is_arm64() -> bool:
    """Returns whether this process runs 64-bit Arm code; a 32-bit one on a 64-bit system does not."""
    return machine() in _ARM64 and sys.maxsize > 2**32


def exact_8_bits(cpuinfo: Path = _CPUINFO) -> bool | None:
    """Returns whether int8 weights of -127..127 give exact results on this CPU; None if that is not known.

    On 64-bit Arm they do, with and without the dot-product instructions: kernels without them subtract 128 from
    activations and add two products in 16 bits, and 2 * 128 * 127 just fits. A weight of -128 does not fit. On x86 they
    need VNNI. Nothing is known of 32-bit Arm and other kinds of CPU, or of x86 where the system does not list features.

    Args:
        cpuinfo: Where Linux lists the features of the CPU.
    """
    if is_arm64():
        return True
    features = cpu_features(cpuinfo) if machine() in _X86 else None
    return None if features is None else bool(features & _WIDE_DOT_PRODUCTS)


def is_arm64_linux() -> bool:
    """Returns whether this process runs 64-bit Arm code under Linux."""
    return is_arm64() and sys.platform == "linux"


def has_bf16(cpuinfo: Path = _CPUINFO) -> bool | None:
    """Returns whether the CPU multiplies in bfloat16; None if the system does not say.

    Args:
        cpuinfo: Where Linux lists the features of the CPU.
    """
    features = cpu_features(cpuinfo)
    return None if features is None else bool(features & _BF16_PRODUCTS)
