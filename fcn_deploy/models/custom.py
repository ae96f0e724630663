"""Nets of the user's own: made by a callable that the command line names, weights loaded strictly."""

from __future__ import annotations

import copy
import importlib
import inspect
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import CheckpointInfo, ModelSpec
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import sha256_file
from fcn_deploy.models.adapter import AdaptedNet
from fcn_deploy.models.checkpoint import check_fit, finite_float32, read_tensors, strip_prefixes
from fcn_deploy.models.probe import probe

_LAYOUT = "own"


@dataclass(frozen=True, eq=False)
class CustomNet:
    """A net of the user's own with its weights, known to be fully convolutional.

    Attributes:
        name: What made it, `package.module:callable`.
        module: float [N, 3, H, W] to float [N, C, H, W], in evaluation mode.
        info: Hash of the checkpoint.
        num_classes: C.
        padding: How it pads, or None.
        spec: The spec the checkpoint carries, or None.
    """

    name: str
    module: AdaptedNet
    info: CheckpointInfo
    num_classes: int
    padding: Padding | None
    spec: ModelSpec | None = None

    @property
    def variant(self) -> str:
        """The name of the callable alone, which files are called after."""
        return self.name.rpartition(":")[2].rpartition(".")[2]


def load_custom(name: str, weights: Path, padding: Padding | None = None, shape: ImageShape | None = None) -> CustomNet:
    """Makes a net, loads its weights, and makes sure that it can be deployed.

    This runs the user's code: the module that is named, and nothing that stands in a checkpoint or model file.

    Args:
        name: `package.module:callable`; the current folder is searched first.
        weights: A `.pth` or `.safetensors` state_dict with every tensor of the net and no other.
        padding: For a net that works at multiples of some size only.
        shape: The one shape it has to work at; any where None.

    Raises:
        InputError: The callable cannot be imported or gives no module, the weights do not fit, or the net is not fully
            convolutional; see `probe`.
        UsageError: `name` is not of that form.
    """
    net = make_net(name)
    spec = load_strictly(net, weights, name)
    module = AdaptedNet(net, padding).eval()
    with redirect_stdout(sys.stderr):
        num_classes = probe(module, shape)
    return CustomNet(name, module, CheckpointInfo(sha256_file(weights), _LAYOUT), num_classes, padding, spec)


def make_net(name: str) -> nn.Module:
    """Imports and calls what makes a net; a module that is a net already is taken as it is.

    Args:
        name: `package.module:callable`, for instance `torchvision.models.segmentation:fcn_resnet50`.

    Raises:
        InputError: It cannot be imported or called, or gives no `nn.Module`.
        UsageError: `name` is not of that form.
    """
    match = re.fullmatch(r"([\w.]+):([A-Za-z_][\w.]*)", name)
    if match is None:
        raise UsageError(
            "bad name of a net", got=repr(name), expected="package.module:callable, such as nets:make_unet"
        )
    with redirect_stdout(sys.stderr):  # stdout is for what the command has to say
        made: Any = _imported(name, *match.groups())
        if not isinstance(made, nn.Module):
            made = _called(name, made)
    if not isinstance(made, nn.Module):
        raise InputError(f"{name} gives no net", got=f"a {type(made).__name__}", expected="a torch.nn.Module")
    # A copy, for what is there already, or kept by its maker, would be one net under two checkpoints.
    return copy.deepcopy(made).float().eval()


def _imported(name: str, module: str, attribute: str) -> object:
    # As `python` does and a console script does not; it stays there, for modules may be imported later.
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        itself = module == missing or module.startswith(f"{missing}.")
        raise InputError(
            f"cannot import {module}, which --model names",
            got=f"no module called {missing}",
            fix="run from the folder it is in, or install it" if itself else f"install {missing}, which it needs",
        ) from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(f"cannot import {module}, which --model names", got=reason(error)) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [key for key in dir(found) if not key.startswith("_") and callable(getattr(found, key))]
            raise InputError(
                f"{module} has no {attribute}, which --model names", expected=f"one of {', '.join(sorted(public))}"
            )
        found = getattr(found, part)
    return found


def _called(name: str, maker: Any) -> object:
    if not callable(maker):
        raise InputError(f"{name} makes no net", got=f"a {type(maker).__name__}", expected="a function or class")
    try:
        inspect.signature(maker).bind()
    except TypeError as error:
        raise InputError(
            f"{name} cannot be called without arguments",
            got=str(error),
            fix="write a function that calls it with the arguments your net was trained with, and name that",
        ) from error
    except ValueError:
        pass  # a callable without a signature, as compiled ones are: calling it is the only way to know
    try:
        return maker()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(f"{name} fails", got=reason(error)) from error


def reason(error: BaseException) -> str:
    """Returns the type and first line of an exception that somebody else's code raised."""
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def load_strictly(net: nn.Module, path: Path, name: str) -> ModelSpec | None:
    """Loads weights into a net: every tensor of it, and no other.

    Args:
        net: The net; changed in place.
        path: A `.pth` or `.safetensors` file.
        name: What to call the net in an error.

    Returns:
        The spec the file carries, or None.

    Raises:
        InputError: The file cannot be read; tensors are missing, left over or of another shape; or one is not finite.
    """
    tensors, spec = read_tensors(path)
    wanted = net.state_dict()
    if wanted.keys() != tensors.keys():  # a net may well have a module called `module`
        tensors = {strip_prefixes(key): tensor for key, tensor in tensors.items()}
    check_fit(tensors, wanted, f"{path} does not fit {name}")
    net.load_state_dict({key: _like(wanted[key], key, tensor, path) for key, tensor in tensors.items()})
    return spec


def _like(wanted: Tensor, key: str, tensor: Tensor, path: Path) -> Tensor:
    # Counters such as a batch normalisation's are whole numbers on both sides.
    return finite_float32(key, tensor, path) if wanted.is_floating_point() else tensor
