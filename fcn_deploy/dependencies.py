"""Which extra brings a package that is missing, as an error that says how to install it."""

from __future__ import annotations

from fcn_deploy.errors import DependencyError
from fcn_deploy.installation import install_command

# By extra of pyproject.toml: the modules that only some machines have, and whose absence no other code explains.
_MODULES = {
    "cli": ("click", "PIL", "rich"),
    "host": ("torch", "ml_dtypes", "onnx", "onnx_ir", "onnxscript", "onnxsim", "safetensors", "matplotlib", "jinja2"),
}
_EXTRAS = {module: extra for extra, modules in _MODULES.items() for module in modules}


def missing_package(error: ModuleNotFoundError) -> DependencyError | None:
    """Returns the error that names the extra of a missing module; None if no extra brings it.

    Args:
        error: What Python raised; its `name` is the module, or one within it.
    """
    module = (error.name or "").partition(".")[0]
    if module not in _EXTRAS:
        return None
    extra = _EXTRAS[module]
    return DependencyError(f"{module} (extra '{extra}') is not installed", fix=install_command(extra))
