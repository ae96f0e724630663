"""What a user installs holds what it needs, and works in an environment of its own."""

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.metadata import Metadata
from packaging.utils import canonicalize_name

from fcn_deploy import __version__
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.runtime import Segmenter
from tests.support.building import build
from tests.support.environments import CONSTRAINTS, CleanEnvironment
from tests.support.extras import PROJECT, requirements

LABEL = """
import json, sys
import numpy
from fcn_deploy.runtime import Segmenter
with Segmenter(sys.argv[1], threads=1) as segmenter:
    labels = segmenter(numpy.load(sys.argv[2])["photo"])
unwanted = {"click", "PIL", "rich", "torch", "onnx"}
print(json.dumps([labels.tolist(), sorted(unwanted & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def wheel(distributions):
    return distributions[1]


@pytest.mark.slow
def test_the_wheel_holds_the_package_the_demo_net_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "fcn_deploy/demo/fcn8s_demo.safetensors" in names
    assert "fcn_deploy/py.typed" in names
    templates = ("page.html.j2", "macros.html.j2", "report.css")
    assert {f"fcn_deploy/reporting/html/templates/{name}" for name in templates} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"fcn_deploy"}


@pytest.mark.slow
def test_the_metadata_have_the_licence_as_spdx_and_numpy_as_the_one_dependency(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        found = Metadata.from_email(archive.read(name))  # checks what it reads
    assert found.license_expression == "Apache-2.0"
    assert str(found.version) == __version__
    assert "Programming Language :: Python :: 3.13" in found.classifiers
    assert set(found.provides_extra) == set(PROJECT["optional-dependencies"])
    assert [need.name for need in found.requires_dist if need.marker is None] == ["numpy"]
    # `host` names the packages of `cli` one by one: an error message can list them.
    optional = [need for need in found.requires_dist if need.marker is not None]
    of_host = {canonicalize_name(need.name) for need in optional if need.marker.evaluate({"extra": "host"})}
    assert of_host == {canonicalize_name(need.name) for need in requirements("host")} - {"numpy"}


@pytest.mark.slow
def test_the_sdist_has_the_tests_and_what_they_read(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"Makefile", "CONTRIBUTING.md", "constraints.txt", "tools/oldest.txt", "docker/x86.Dockerfile", ".ci/run"}
    assert wanted | {"tests/test_wheel.py", "docs/device.md", ".dockerignore", "LICENSE"} <= names
    assert not [name for name in names if name.startswith((".venv", "out/", "dist/", "demo-out/"))]


@pytest.mark.slow
def test_the_runtime_works_with_numpy_and_onnxruntime_alone(wheel, exported, photos, tmp_path):
    engine = tmp_path / "net.onnx"
    build(exported("fcn8s"), BuildConfig()).save(engine)
    np.savez(tmp_path / "photo.npz", photo=photos[0])
    environment = CleanEnvironment(tmp_path / "environment")
    environment.install("--constraint", CONSTRAINTS, f"{wheel}[cpu]")

    result = environment.run("python", "-W", "error", "-c", LABEL, engine, tmp_path / "photo.npz")
    assert result.returncode == 0, result.stderr
    labels, imported = json.loads(result.stdout)
    with Segmenter(engine, threads=1) as segmenter:
        np.testing.assert_array_equal(labels, segmenter(photos[0]))
    assert imported == []

    # Without the extra `cli` both ways to start it say which packages it needs.
    commands = [environment.run("fcn-deploy", "doctor"), environment.run("python", "-m", "fcn_deploy", "doctor")]
    packages = " ".join(f"'{text}'" for text in PROJECT["optional-dependencies"]["cli"])
    for result in commands:
        assert (result.returncode, result.stdout) == (7, "")
        assert result.stderr == f"error: click (extra 'cli') is not installed; fix: pip install {packages}\n"


@pytest.mark.slow
def test_the_host_exports_and_builds_in_an_environment_of_its_own(wheel, tmp_path):
    environment = CleanEnvironment(tmp_path / "environment")
    environment.install("--constraint", CONSTRAINTS, f"{wheel}[host,cpu]")
    code = "from fcn_deploy.demo import checkpoint_path; print(checkpoint_path())"
    weights = Path(environment.run("python", "-c", code).stdout.strip())
    assert weights.is_relative_to(tmp_path / "environment")
    model, engine = tmp_path / "net.onnx", tmp_path / "net.fp32.onnx"
    for command in (
        ["fcn-deploy", "--version"],
        ["fcn-deploy", "export", "--weights", weights, "-o", model],
        ["python", "-m", "fcn_deploy", "build-engine", model, "--fp32", "-o", engine],
        ["fcn-deploy", "inspect", engine, "--json"],
    ):
        result = environment.run(*command)
        assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["kind"] == "engine"
