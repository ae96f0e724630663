import pytest

from fcn_deploy.diagnostics.machine import System, this_machine
from fcn_deploy.errors import DependencyError
from fcn_deploy.runtime.tensorrt.driver import Gpu

ADA = Gpu(0, "NVIDIA RTX 4000 Ada Generation", "8.9", 20 * 2**30)


def _raise(error):
    def ask():
        raise error

    return ask


def test_the_gpus_are_those_of_the_driver(tmp_path):
    nvidia = this_machine(System(nvidia=tmp_path / "none", gpus=lambda: (ADA,), cuda=lambda: "12.6")).nvidia
    assert (nvidia.driver, nvidia.gpus, nvidia.problem, nvidia.cuda) == (None, (ADA,), None, "12.6")


def test_a_machine_without_a_driver_says_why_it_has_no_gpus():
    error = DependencyError("no NVIDIA driver was found", got="cuInit")
    nvidia = this_machine(System(gpus=_raise(error))).nvidia
    assert (nvidia.gpus, nvidia.problem) == ((), "no NVIDIA driver was found: cuInit")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n", "535.183.01"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n", "580.65.06"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n", "540.4.0"),
        ("nothing known", None),
    ],
)
def test_the_version_of_the_driver_is_read_even_if_the_driver_cannot_be_asked(tmp_path, text, version):
    (tmp_path / "version").write_text(text)
    broken = _raise(OSError("libcuda.so.1: file too short"))
    nvidia = this_machine(System(nvidia=tmp_path / "version", gpus=broken)).nvidia
    assert nvidia.driver == version
    assert nvidia.problem == "the driver cannot be asked: OSError: libcuda.so.1: file too short"


def test_a_board_says_its_name_and_arm_has_none_for_its_cpu(tmp_path):
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd42\n")
    machine = this_machine(System(board=tmp_path / "model", cpuinfo=tmp_path / "cpuinfo"))
    assert machine.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert machine.cpu.name


def test_the_name_of_a_cpu_is_its_model_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU @ 2.0 GHz\nmodel name\t: Another\n")
    assert this_machine(System(cpuinfo=tmp_path / "cpuinfo")).cpu.name == "A CPU @ 2.0 GHz"


@pytest.mark.parametrize(("vnni", "text"), [(True, "generic and vnni"), (False, "saturate"), (None, "unknown")])
def test_vnni_decides_which_int8_engines_are_exact(vnni, text):
    assert text in this_machine(System(vnni=lambda: vnni)).cpu.int8
