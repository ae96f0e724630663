"""The nets, in torch. Its names are resolved when they are used: `spec_options` needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fcn_deploy.models.checkpoint import Checkpoint, load_model, read_checkpoint
    from fcn_deploy.models.fcn import FCN

__all__ = ["FCN", "Checkpoint", "load_model", "read_checkpoint"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("fcn_deploy.models.fcn" if name == "FCN" else "fcn_deploy.models.checkpoint"), name)
