"""Every call into NVIDIA's libraries exists in every supported version, by what their real bindings say."""

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fcn_deploy
import tensorrt_api
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS
from tests.support import fake_builder, fake_nvidia
from tests.support.tensorrt_calls import ALL, needed

FILE = Path(fake_nvidia.__file__).with_name("tensorrt_api.json")
API = json.loads(FILE.read_text())
LIBRARIES = API["libraries"]
CODE = [
    *(Path(fcn_deploy.__file__).parent / "runtime" / "tensorrt").glob("*.py"),
    *(Path(fcn_deploy.__file__).parent / "engines" / "tensorrt").glob("*.py"),
]
# Names that NVIDIA's classes have too, for things of Python's, NumPy's or this package's own.
OTHERS = {
    *("DataType", "FLOAT16", "allocate", "append", "clear", "code", "data", "desc", "dtype", "enqueue"),
    *("flags", "format", "kernel", "kind", "log", "logger", "max", "metadata", "min", "name", "nbytes", "opt"),
    *(
        "pop",
        "precision",
        "remove",
        "scales",
        "serialize",
        "shape",
        "size",
        "start",
        "strides",
        "type",
        "uint8",
        "weights",
    ),
    "write",
}
# What the oldest version that is served lacks, and the package asks for before it uses it.
NEWER = {"tensorrt_rtx 1.4.0.76": {"ComputeCapability.SM121"}}


def nodes(kind):
    for path in CODE:
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kind))


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_has_what_it_is_asked_for(library):
    module, version = library.split()
    found = LIBRARIES[library]
    assert needed(module) - set(found) == NEWER.get(library, set())
    # A C++ type in a signature has no class in Python: the call fails.
    assert [name for name in needed(module) if "nvinfer1::" in found.get(name, "")] == []
    oldest = next(flavor.oldest for flavor in FLAVORS.values() if flavor.module == module)
    assert tuple(map(int, version.split(".")[:2])) >= oldest


@pytest.mark.parametrize("flavor", FLAVORS.values(), ids=FLAVORS)
def test_the_oldest_version_that_is_claimed_is_among_them(flavor):
    versions = [library.split()[1].split(".")[:2] for library in LIBRARIES if library.split()[0] == flavor.module]
    assert flavor.oldest in [tuple(map(int, version)) for version in versions]
    assert len(versions) > 1


def test_no_call_is_missing_from_the_list():
    listed = {part for name in ALL for part in name.split(".")}
    used = {node.attr for node in nodes(ast.Attribute)}
    assert used & set(API["names"]) - listed - OTHERS == set()
    # What is listed is used: by its name, or by a text such as the name of a type.
    texts = {node.value for node in nodes(ast.Constant) if isinstance(node.value, str)}
    defined = {node.name for node in nodes(ast.FunctionDef)}
    unused = {name for name in ALL if name.split(".")[1] not in used | texts | defined}
    assert unused == {f"ComputeCapability.SM{number}" for number in (75, 80, 86, 89, 120, 121)}
    (rtx,) = (flavor for flavor in FLAVORS.values() if flavor.compute_capabilities)
    assert unused == {f"ComputeCapability.SM{each.replace('.', '')}" for each in rtx.compute_capabilities}


def test_keywords_are_those_of_every_version():
    members = {name.split(".")[1]: name for name in ALL}
    calls = [node for node in nodes(ast.Call) if isinstance(node.func, ast.Attribute) and node.func.attr in members]
    asked = {(members[node.func.attr], keyword.arg) for node in calls for keyword in node.keywords}
    assert asked == {("IBuilderConfig.set_timing_cache", "ignore_mismatch")}
    for library, signatures in LIBRARIES.items():
        for name, keyword in asked:
            if name in needed(library.split()[0]):
                assert f"{keyword}:" in signatures[name]


def public(owner):
    return {name for name in vars(owner) if not name.startswith("_")}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_fake_runtime_has_nothing_that_the_library_lacks(library):
    name, version = library.split()
    fake = fake_nvidia.library(fake_nvidia.World(), name, version)
    for owner in ("TensorIOMode", "TensorLocation", "ExecutionContextAllocationStrategy", "ILogger", "Runtime"):
        assert hasattr(fake, owner)
    assert not hasattr(fake, "TensorFormat")  # no library needs it, and the lean one has none
    assert hasattr(fake, "CudaGraphStrategy") == (name == "tensorrt_rtx")
    rtx = name == "tensorrt_rtx"
    classes = {
        "ICudaEngine": fake_nvidia.RtxEngine if rtx else fake_nvidia.Engine,
        "IExecutionContext": fake_nvidia.Context,
        **({"IRuntimeConfig": fake_nvidia.RuntimeConfig, "IRuntimeCache": fake_nvidia.RuntimeCache} if rtx else {}),
    }
    for owner, fake_class in classes.items():
        methods = {key for key, _ in inspect.getmembers(fake_class, inspect.isfunction) if not key.startswith("_")}
        assert {f"{owner}.{method}" for method in methods - {"used"}} <= set(LIBRARIES[library])


@pytest.mark.parametrize("version", [library.split()[1] for library in LIBRARIES if library.startswith("tensorrt ")])
def test_the_fake_builder_has_nothing_that_the_library_lacks(version):
    module, _ = fake_builder.fake_tensorrt(version)
    found = LIBRARIES[f"tensorrt {version}"]
    for owner in ("Builder", "OnnxParser"):
        assert {f"{owner}.{name}" for name in public(getattr(module, owner))} <= set(found)
    for owner in ("NetworkDefinitionCreationFlag", "ProfilingVerbosity", "MemoryPoolType", "LayerInformationFormat"):
        members = getattr(module, owner).__members__
        assert {f"{owner}.{name}" for name in members} & set(found)
        assert set(members) <= set(API["names"])


@pytest.mark.slow
def test_the_file_is_what_the_real_bindings_have(tmp_path):
    if shutil.which("cc") is None:
        pytest.skip("there is no compiler to make empty libraries with")
    try:
        found = tensorrt_api.read_libraries(tmp_path)
    except subprocess.CalledProcessError as error:
        if "download" in error.cmd:
            pytest.skip(f"bindings cannot be downloaded: {error.stderr.decode()[-200:]}")
        raise
    if sys.version_info[:2] == (3, 11):  # another Python may write signatures in other words
        assert found == API
    assert {library: set(names) for library, names in found["libraries"].items()} == {
        library: set(names) for library, names in LIBRARIES.items()
    }


def test_signatures_name_types_as_python_does():
    known = tensorrt_api._known_types(
        "f() -> nvinfer1::IRuntimeCache; g() -> nvinfer1::IEngineInspector; h() -> nvinfer1::TensorFormat",
        ["IRuntimeCache", "EngineInspector"],
    )
    assert known == "f() -> IRuntimeCache; g() -> EngineInspector; h() -> nvinfer1::TensorFormat"
    assert re.search("nvinfer1::TensorFormat", known)
