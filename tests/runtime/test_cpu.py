import pytest

from fcn_deploy.runtime.cpu import cpu_features, has_vnni

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


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni"])
def test_x86_has_vnni_with_either_flag(cpuinfo, flag):
    cpuinfo.write_text(X86.format(f" {flag} ermsb"))
    assert has_vnni(cpuinfo) is True
    assert flag in cpu_features(cpuinfo)


@pytest.mark.parametrize("flags", ["", " avx512f avx512bw", " avx512_vnni_like", " asimd"])
def test_x86_without_the_flags_has_no_vnni_whatever_another_core_has(cpuinfo, flags):
    cpuinfo.write_text(X86.format(flags))
    assert has_vnni(cpuinfo) is False


def test_arm_has_vnni_with_the_dot_product_extension(cpuinfo):
    cpuinfo.write_text(ARM.format(" asimddp i8mm"))
    assert has_vnni(cpuinfo) is True


def test_arm_without_the_extension_has_no_vnni(cpuinfo):
    cpuinfo.write_text(ARM.format(""))
    assert has_vnni(cpuinfo) is False


def test_vnni_is_unknown_without_the_file(cpuinfo):
    assert cpu_features(cpuinfo) is None
    assert has_vnni(cpuinfo) is None


@pytest.mark.parametrize("text", ["", "processor\t: 0\n", "a line without a colon\n"])
def test_vnni_is_unknown_if_the_file_lists_no_features(cpuinfo, text):
    cpuinfo.write_text(text)
    assert has_vnni(cpuinfo) is None


def test_the_features_are_those_of_the_first_core(cpuinfo):
    cpuinfo.write_text(X86.format(""))
    assert cpu_features(cpuinfo) == {"fpu", "sse4_2", "avx2"}


def test_the_file_is_read_once(cpuinfo):
    cpuinfo.write_text(ARM.format(""))
    first = cpu_features(cpuinfo)
    cpuinfo.unlink()
    assert cpu_features(cpuinfo) is first
