"""The process in which onnxsim runs: `python onnxsim_process.py SOURCE TARGET`. No other module imports this one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(source: str, target: str) -> None:
    """Simplifies an ONNX file.

    Args:
        source: The file. Weights may be in other files beside it.
        target: The file to write; large weights go to another beside it.
    """
    if not getattr(sys.flags, "safe_path", False):  # from Python 3.11 on
        del sys.path[0]  # the folder of this file, whose modules would hide others of the same name
    # Without a comparison of its own, which is at one size only; who started this process compares at several.
    simplified, _ = _onnxsim_simplify()(source, 0)

    import onnx

    onnx.save(simplified, target, save_as_external_data=True, location=f"{Path(target).name}.weights")


def _onnxsim_simplify() -> Callable[..., tuple[Any, bool]]:
    """Onnxsim's `simplify`, without the 400 modules that `import onnxsim` imports too: two seconds, 100 MB."""
    found = importlib.util.find_spec("onnxsim")
    assert found is not None
    assert found.loader is not None
    package = importlib.util.module_from_spec(found)
    sys.modules[found.name] = package
    try:
        simplify: Callable[..., tuple[Any, bool]] = importlib.import_module("onnxsim.onnx_simplifier").simplify
    except (ImportError, AttributeError):  # a version in which this module needs what the package defines
        found.loader.exec_module(package)
        simplify = package.simplify
    return simplify


if __name__ == "__main__":
    main(*sys.argv[1:])
