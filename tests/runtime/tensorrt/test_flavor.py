import re

import pytest

from fcn_deploy.errors import DependencyError
from fcn_deploy.installation import install_command
from fcn_deploy.runtime.tensorrt.flavor import BUILDERS, FLAVORS


def test_a_folder_of_type_stubs_is_no_library(tmp_path, monkeypatch):
    """tensorrt-stubs leaves a folder `tensorrt` without code, which Python would import as a namespace."""
    (tmp_path / "tensorrt_lean").mkdir()
    (tmp_path / "tensorrt_lean" / "__init__.pyi").touch()
    monkeypatch.syspath_prepend(tmp_path)
    lean = next(flavor for flavor in FLAVORS.values() if flavor.module == "tensorrt_lean")
    assert not lean.installed
    with pytest.raises(DependencyError, match=re.escape(f"not installed; fix: {install_command('tensorrt-lean')}")):
        lean.load()


def test_builders_that_need_a_gpu_come_first():
    assert [flavor.builds_without_gpu for flavor in BUILDERS] == [False, True]
