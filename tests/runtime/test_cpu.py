import sys
from types import SimpleNamespace

import pytest

from fcn_deploy.runtime import cpu
from fcn_deploy.runtime.cpu import cpu_features, exact_8_bits, is_arm64

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
flags\t\t: fpu sse4_2 avx2{}
bugs\t\t: spectre_v1

processor\t: 1
flags\t\t: fpu avx512_vnni
"""
ARM = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd aes{}
CPU implementer\t: 0x41
"""


@pytest.fixture
def cpuinfo(tmp_path):
    """Where a system lists the features of its CPU."""
    return tmp_path / "cpuinfo"


@pytest.fixture
def kind(monkeypatch):
    """Says which kind of CPU the system names, of x86 unless it is called."""

    def say(machine):
        monkeypatch.setattr(cpu.platform, "machine", lambda: machine)

    say("x86_64")
    return say


@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "i686"])
@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni"])
def test_8_bits_are_exact_on_x86_with_either_flag_of_vnni(kind, cpuinfo, machine, flag):
    kind(machine)
    cpuinfo.write_text(X86.format(f" {flag} ermsb"))
    assert exact_8_bits(cpuinfo) is True
    assert flag in cpu_features(cpuinfo)


@pytest.mark.parametrize("flags", ["", " avx512f avx512bw", " avx512_vnni_like", " asimddp"])
def test_8_bits_are_not_exact_on_x86_without_the_flags_whatever_another_core_has(kind, cpuinfo, flags):
    cpuinfo.write_text(X86.format(flags))
    assert exact_8_bits(cpuinfo) is False


@pytest.mark.parametrize("machine", ["aarch64", "arm64", "ARM64"])  # Linux, macOS, Windows
@pytest.mark.parametrize("features", ["", " asimddp i8mm", None])
def test_8_bits_are_exact_on_any_64_bit_arm(kind, cpuinfo, machine, features):
    kind(machine)
    if features is not None:
        cpuinfo.write_text(ARM.format(features))
    assert is_arm64()
    assert exact_8_bits(cpuinfo) is True


def test_windows_is_asked_what_the_process_is_compiled_for(kind, monkeypatch, cpuinfo):
    """A Python for x86 that Windows emulates on Arm: its inference library is for x86, too."""
    kind("ARM64")
    monkeypatch.setattr(cpu, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(cpu.sysconfig, "get_platform", lambda: "win-amd64")
    assert not is_arm64()
    assert exact_8_bits(cpuinfo) is None
    monkeypatch.setattr(cpu.sysconfig, "get_platform", lambda: "win-arm64")
    assert exact_8_bits(cpuinfo) is True


def test_nothing_is_known_of_a_32_bit_process_on_64_bit_arm(kind, monkeypatch, cpuinfo):
    """As on Raspberry Pi OS with 32 bits, whose kernel has 64."""
    kind("aarch64")
    monkeypatch.setattr(cpu, "sys", SimpleNamespace(maxsize=2**31 - 1))
    cpuinfo.write_text(ARM.format(" asimddp"))
    assert not is_arm64()
    assert exact_8_bits(cpuinfo) is None
    assert sys.maxsize > 2**32


@pytest.mark.parametrize("machine", ["armv7l", "riscv64", "ppc64le", "s390x", ""])
def test_nothing_is_known_of_other_kinds_of_cpu(kind, cpuinfo, machine):
    kind(machine)
    cpuinfo.write_text(ARM.format(" asimddp"))
    assert exact_8_bits(cpuinfo) is None


def test_nothing_is_known_without_the_file(kind, cpuinfo):
    assert cpu_features(cpuinfo) is None
    assert exact_8_bits(cpuinfo) is None


@pytest.mark.parametrize("text", ["", "processor\t: 0\n", "a line without a colon\n"])
def test_nothing_is_known_if_the_file_lists_no_features(kind, cpuinfo, text):
    cpuinfo.write_text(text)
    assert exact_8_bits(cpuinfo) is None


def test_the_features_are_those_of_the_first_core(cpuinfo):
    cpuinfo.write_text(X86.format(""))
    assert cpu_features(cpuinfo) == {"fpu", "sse4_2", "avx2"}


def test_the_file_is_read_once(cpuinfo):
    cpuinfo.write_text(ARM.format(""))
    first = cpu_features(cpuinfo)
    cpuinfo.unlink()
    assert cpu_features(cpuinfo) is first
