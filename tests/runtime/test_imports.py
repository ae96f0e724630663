"""What an edge device has to install and load, seen from a process of its own."""

import json
import statistics
import subprocess
import sys
from textwrap import dedent

import numpy as np
import pytest

from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.installation import install_command
from fcn_deploy.runtime import Segmenter
from tests.support.blocked import BLOCK
from tests.support.building import build
from tests.support.openvino import needs_openvino

# The names of the third-party packages that have been imported since the process started. Modules without a spec come
# from no file: Cython makes such modules in memory for the extensions of numpy 1.
IMPORTED = """
import sys
at_start = {name.partition(".")[0] for name in sys.modules}

def imported():
    found = [name for name, module in sys.modules.items() if getattr(module, "__spec__", None)]
    names = {name.partition(".")[0] for name in found} - at_start
    return sorted(names - sys.stdlib_module_names)
"""

HOST_ONLY = "torch onnx onnx_ir onnxscript onnxsim click PIL rich safetensors google sklearn scipy av tkinter"


def python(script, *arguments):
    """Runs a script and returns the JSON it prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_importing_the_package_imports_no_third_party_module():
    script = """
    import fcn_deploy
    import json
    assert fcn_deploy.__version__
    assert "Segmenter" in dir(fcn_deploy)
    print(json.dumps(imported()))
    """
    assert python(IMPORTED + dedent(script)) == ["fcn_deploy"]


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    script = """
    import json
    import fcn_deploy
    try:
        fcn_deploy.missing
    except AttributeError as error:
        print(json.dumps([str(error), imported()]))
    """
    message, modules = python(IMPORTED + dedent(script))
    assert message == "module 'fcn_deploy' has no attribute 'missing'"
    assert modules == ["fcn_deploy"]


LABEL = """
import json
import numpy as np
from fcn_deploy.runtime import Segmenter

with Segmenter(sys.argv[2], threads=1) as segmenter:
    labels = segmenter(np.load(sys.argv[3]))
    print(json.dumps([labels.tolist(), segmenter.io, imported()]))
"""


@pytest.mark.parametrize("io", ["image", "tensor"])
def test_an_edge_device_labels_an_image_without_any_library_of_the_host(engine, photos, tmp_path, io):
    np.save(tmp_path / "photo.npy", photos[0])
    labels, found, modules = python(BLOCK + IMPORTED + LABEL, HOST_ONLY, engine(io), tmp_path / "photo.npy")
    with Segmenter(engine(io), threads=1) as segmenter:
        np.testing.assert_array_equal(labels, segmenter(photos[0]))
    assert found == io
    assert set(modules) == {"fcn_deploy", "numpy", "onnxruntime"}


@needs_openvino
def test_an_edge_device_needs_numpy_and_openvino_for_its_engines(exported, photos, tmp_path):
    np.save(tmp_path / "photo.npy", photos[0])
    path = tmp_path / "net.onnx"
    build(exported("fcn8s"), BuildConfig("fp32"), backend="openvino").save(path)
    blocked = f"{HOST_ONLY} onnxruntime openvino_telemetry"
    labels, found, modules = python(BLOCK + IMPORTED + LABEL, blocked, path, tmp_path / "photo.npy")
    with Segmenter(path, threads=1) as segmenter:
        np.testing.assert_array_equal(labels, segmenter(photos[0]))
    assert found == "image"
    hidden = "\nimport json, sys\nsys.modules['openvino_telemetry'] = None\nimport numpy, openvino\n"
    base = python(IMPORTED + hidden + "print(json.dumps(imported()))")
    assert set(modules) - set(base) == {"fcn_deploy"}


def test_the_runtime_adds_only_itself_to_what_numpy_and_onnxruntime_load(engine, photos, tmp_path):
    np.save(tmp_path / "photo.npy", photos[0])
    base = python(IMPORTED + "\nimport json, numpy, onnxruntime\nprint(json.dumps(imported()))")
    *_, modules = python(IMPORTED + LABEL, "", engine("image"), tmp_path / "photo.npy")
    assert set(modules) - set(base) == {"fcn_deploy"}
    assert not set(HOST_ONLY.split()) & set(modules)


def test_without_the_inference_library_the_error_names_the_extra(engine):
    script = """
    import json
    from fcn_deploy.runtime import Segmenter
    from fcn_deploy.errors import DependencyError
    try:
        Segmenter(sys.argv[2])
    except DependencyError as error:
        print(json.dumps([error.exit_code, str(error)]))
    """
    code, message = python(BLOCK + dedent(script), "onnxruntime", engine("image"))
    assert code == 7
    assert message.startswith(f"ONNX Runtime is not installed; fix: {install_command('cpu')}")


def test_the_public_names_of_the_runtime_are_there():
    script = """
    import json
    import fcn_deploy.runtime as runtime
    print(json.dumps([name for name in runtime.__all__ if not hasattr(runtime, name)]))
    """
    assert python(script) == []


@pytest.mark.slow
def test_importing_the_runtime_costs_little_over_numpy_and_onnxruntime():
    script = """
    import time
    import numpy, onnxruntime
    begin = time.perf_counter()
    import fcn_deploy.runtime
    print(time.perf_counter() - begin)
    """
    python(script)  # writes the byte code
    assert statistics.median(python(script) for _ in range(5)) < 0.15
