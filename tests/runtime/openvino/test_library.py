"""The library: quiet when it is imported, missing in words, and asked for devices."""

import json
import os
import subprocess
import sys
from textwrap import dedent
from types import SimpleNamespace

import pytest

from fcn_deploy.errors import DependencyError, UsageError
from fcn_deploy.installation import install_command
from fcn_deploy.runtime import cpu
from fcn_deploy.runtime.openvino import library
from tests.support.openvino import needs_openvino


def run(script, home):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(home), "CI": ""},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@needs_openvino
def test_importing_it_writes_nothing_under_the_home_folder_and_asks_no_host(tmp_path):
    """openvino_telemetry, which openvino imports, would do both."""
    script = """
    import json, socket, sys
    asked = []
    socket.getaddrinfo = lambda *arguments, **options: asked.append(arguments)
    socket.socket.connect = lambda *arguments: asked.append(arguments)
    from fcn_deploy.runtime.openvino import library
    library.core()
    print(json.dumps([asked, "openvino_telemetry" in sys.modules, hasattr(library.load(), "convert_model")]))
    """
    asked, telemetry, whole = run(script, tmp_path)
    assert (asked, telemetry, whole) == ([], False, True)
    assert list(tmp_path.iterdir()) == []


@needs_openvino
def test_telemetry_that_the_program_has_imported_stays(tmp_path):
    script = """
    import json, sys, types
    own = sys.modules["openvino_telemetry"] = types.ModuleType("openvino_telemetry")
    own.Telemetry = lambda *arguments, **options: types.SimpleNamespace(send_event=lambda *event: None)
    own.backend = sys.modules["openvino_telemetry.backend"] = types.ModuleType("openvino_telemetry.backend")
    own.backend.backend_ga4 = None
    from fcn_deploy.runtime.openvino import library
    library.load()
    print(json.dumps(sys.modules["openvino_telemetry"] is own))
    """
    assert run(script, tmp_path)


@needs_openvino
def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert library.version() == version("openvino").partition("-")[0]


class FakeCore:
    def __init__(self, error=None):
        self.properties, self.error = {}, error

    def set_property(self, device, properties):
        if self.error is not None:
            raise self.error
        self.properties[device] = properties


@pytest.mark.parametrize("error", [None, RuntimeError("Unsupported property")])
@pytest.mark.parametrize("arm64", [False, True])
def test_kernels_of_earlier_sizes_are_limited_if_the_library_lets_them_be_but_not_on_arm(monkeypatch, error, arm64):
    """On Arm OpenVINO keeps no kernels by itself; told to keep any, it gives wrong labels."""
    made = FakeCore(error)
    monkeypatch.setattr(library.cpu, "is_arm64", lambda: arm64)
    monkeypatch.setattr(library, "load", lambda: SimpleNamespace(Core=lambda: made))
    library.core.cache_clear()
    try:
        assert library.core() is made
    finally:
        library.core.cache_clear()
    assert made.properties == ({} if error or arm64 else {"CPU": {"CPU_RUNTIME_CACHE_CAPACITY": 1000}})


@needs_openvino
@pytest.mark.slow
def test_memory_grows_by_little_with_the_sizes_of_images(exported, tmp_path):
    script = f"""
    import json, sys
    from pathlib import Path
    import numpy as np
    from fcn_deploy.runtime.openvino.backend import OpenVinoBackend

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    backend, found = OpenVinoBackend({str(exported("fcn8s"))!r}, threads=1), []
    for index in range(700):
        backend.infer({{"image": np.zeros((1, 3, 128 - index % 101, 128 - index % 97), np.float32)}})
        if index in (299, 699):
            found.append(resident())
    print(json.dumps(found))
    """
    first, last = run(script, tmp_path)
    assert last - first < 110  # without a limit it was 209 MB, with it 41


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    library.load.cache_clear()
    for missing in (library.check_installed, library.load):
        with pytest.raises(DependencyError, match="OpenVINO is not installed") as caught:
            missing()
        assert caught.value.exit_code == 7
        assert caught.value.fix == install_command("openvino")


def test_a_library_that_cannot_be_loaded_says_why(monkeypatch):
    def broken(name):
        raise OSError("libtbb.so.12: cannot open\nshared object file")

    monkeypatch.setattr(library, "check_installed", lambda: None)
    monkeypatch.setattr(library.importlib, "import_module", broken)
    library.load.cache_clear()
    with pytest.raises(DependencyError, match=r"cannot be loaded; got libtbb\.so\.12: cannot open shared object file"):
        library.load()


@pytest.mark.parametrize("name", [None, "CPU", "GPU", "GPU.1", "NPU"])
def test_single_devices_have_a_name(name):
    library.check_device_name(name)


@pytest.mark.parametrize("name", ["", "gpu", "AUTO", "MULTI:GPU,CPU", "HETERO:GPU,CPU", "GPU.x", "CUDA", 0])
def test_a_name_that_stands_for_no_single_device_is_a_usage_error(name):
    with pytest.raises(UsageError, match=r"unknown `device_name`; got .*; expected CPU, GPU or NPU, or GPU\.1"):
        library.check_device_name(name)


@needs_openvino
def test_a_device_that_is_not_there_is_a_dependency_error():
    library.check_device("CPU")
    with pytest.raises(DependencyError, match=r"finds no GPU\.7 on this machine; got CPU") as caught:
        library.check_device("GPU.7")
    assert caught.value.exit_code == 7


@needs_openvino
def test_a_cpu_whose_flags_lack_bf16_has_none_though_the_library_can_emulate_it(monkeypatch):
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    assert not library.has_bf16()
