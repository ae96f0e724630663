"""The nets, in torch. The names of this package are imported when they are first used, and torch with them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fcn_deploy.models.checkpoint import Checkpoint, load_model, read_checkpoint
    from fcn_deploy.models.fcn import FCN

_MODULES = {"FCN": "fcn", "Checkpoint": "checkpoint", "load_model": "checkpoint", "read_checkpoint": "checkpoint"}

__all__ = ["FCN", "Checkpoint", "load_model", "read_checkpoint"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
