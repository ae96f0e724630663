"""What a user installs holds what it needs."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True)
    (path,) = folder.glob("*.whl")
    return path


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
def test_the_demo_net_is_found_in_an_installed_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = """
import fcn_deploy
from fcn_deploy.demo import checkpoint_path
from fcn_deploy.models import read_checkpoint
print(fcn_deploy.__file__)
print(read_checkpoint(checkpoint_path()).variant)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [str(tmp_path / "fcn_deploy" / "__init__.py"), "fcn8s"]
