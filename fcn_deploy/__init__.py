"""fcn-deploy: a trained FCN goes in; a small, verified thing that an edge device runs comes out.

Importing this package imports no third-party library; the public names below are resolved when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fcn_deploy.artifacts.spec import ModelSpec
    from fcn_deploy.errors import FcnDeployError
    from fcn_deploy.runtime import Segmenter
    from fcn_deploy.workflows.deploying import DeployConfig, deploy

from fcn_deploy._version import __version__

_PUBLIC = {
    "DeployConfig": "fcn_deploy.workflows.deploying",
    "FcnDeployError": "fcn_deploy.errors",
    "ModelSpec": "fcn_deploy.artifacts.spec",
    "Segmenter": "fcn_deploy.runtime",
    "deploy": "fcn_deploy.workflows.deploying",
}

__all__ = ["DeployConfig", "FcnDeployError", "ModelSpec", "Segmenter", "__version__", "deploy"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
