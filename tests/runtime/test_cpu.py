import pytest

from fcn_deploy.runtime import cpu

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
def cpuinfo(tmp_path, monkeypatch):
    """Writes what the system says of its CPU."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu, "_CPUINFO", path)
    cpu.cpu_features.cache_clear()
    yield path
    cpu.cpu_features.cache_clear()


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni"])
def test_x86_has_wide_dot_products_by_either_flag(cpuinfo, flag):
    cpuinfo.write_text(X86.format(f" {flag} ermsb"))
    assert cpu.has_vnni() is True
    assert flag in cpu.cpu_features()


@pytest.mark.parametrize("flags", ["", " avx512f avx512bw", " avx512_vnni_like", " asimd"])
def test_x86_without_the_flags_has_none_whatever_another_core_says(cpuinfo, flags):
    cpuinfo.write_text(X86.format(flags))
    assert cpu.has_vnni() is False


def test_arm_has_them_with_the_dot_product_extension(cpuinfo):
    cpuinfo.write_text(ARM.format(" asimddp i8mm"))
    assert cpu.has_vnni() is True


def test_arm_without_the_extension_has_none(cpuinfo):
    cpuinfo.write_text(ARM.format(""))
    assert cpu.has_vnni() is False


def test_a_system_without_the_file_cannot_tell(cpuinfo):
    assert cpu.cpu_features() is None
    assert cpu.has_vnni() is None


@pytest.mark.parametrize("text", ["", "processor\t: 0\n", "a line without a colon\n"])
def test_a_file_without_flags_cannot_tell(cpuinfo, text):
    cpuinfo.write_text(text)
    assert cpu.has_vnni() is None


def test_the_first_core_speaks_for_all(cpuinfo):
    cpuinfo.write_text(X86.format(""))
    assert cpu.cpu_features() == {"fpu", "sse4_2", "avx2"}


def test_this_machine_is_asked_once(cpuinfo):
    cpuinfo.write_text(ARM.format(""))
    first = cpu.cpu_features()
    cpuinfo.unlink()
    assert cpu.cpu_features() is first
