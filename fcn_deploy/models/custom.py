"""Custom nets: made by a callable that the user names, their weights loaded strictly."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fcn_deploy.artifacts.geometry import AutoPadding, Padding
from fcn_deploy.artifacts.outputs import Outputs
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import CheckpointInfo, ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path, sha256_file
from fcn_deploy.models.adapter import AdaptedNet
from fcn_deploy.models.checkpoint import read_tensors
from fcn_deploy.models.probe import find_padding, probe
from fcn_deploy.models.spec_options import net_name
from fcn_deploy.models.state import finite_float32, fitted, load_into
from fcn_deploy.models.weights_options import WeightsOptions

_LAYOUT = "own"  # as specs record it


@dataclass(frozen=True, eq=False)
class CustomNet:
    """A custom net with its weights, checked by `probe`.

    Attributes:
        name: The callable that made it, `package.module:callable`.
        module: float [N, 3, H, W] to float [N, C, H, W], in evaluation mode.
        info: Hash of the checkpoint.
        num_classes: C, the channels of its logits.
        padding: How images are padded; None for no padding.
        min_size: The smallest height and width of images that it takes.
        outputs: What is taken from what the net returns; None for the logits as they are.
        spec: The spec in the checkpoint, or None.
    """

    name: str
    module: AdaptedNet
    info: CheckpointInfo
    num_classes: int
    padding: Padding | None
    min_size: tuple[int, int] = (1, 1)
    outputs: Outputs | None = None
    spec: ModelSpec | None = None

    @property
    def variant(self) -> str:
        """The name of the callable without its module; files are named after it."""
        return self.name.rpartition(":")[2].rpartition(".")[2]


def load_custom(
    name: str,
    weights: str | os.PathLike[str],
    padding: Padding | AutoPadding | None = None,
    shape: ImageShape | None = None,
    part: WeightsOptions | None = None,
    outputs: Outputs | None = None,
    check: Callable[[nn.Module], None] | None = None,
) -> CustomNet:
    """Makes a net, loads its weights, and checks that it can be deployed.

    This runs the user's code: the module that is named, and nothing from a checkpoint or model file.

    Args:
        name: `package.module:callable`; the current folder is searched first.
        weights: A `.pth` or `.safetensors` file with every tensor of the net and no other.
        padding: For a net that works only at multiples of some size, which `AutoPadding` finds out.
        shape: The one shape it has to work at; None for every shape.
        part: Which part of the file holds the weights.
        outputs: What is taken from what the net returns; None for the logits as they are.
        check: Called with the net before its weights are read. What it raises ends the loading.

    Raises:
        InputError: The callable cannot be imported or returns no module, the weights do not fit, or the net is not
            fully convolutional; see `probe`.
        UsageError: `name` does not have that form.
    """
    weights = as_path(weights)
    net = make_net(name)
    if check is not None:
        check(net)
    spec = load_strictly(net, weights, name, part)
    with redirect_stdout(sys.stderr):
        if isinstance(padding, AutoPadding):
            padding = find_padding(AdaptedNet(net, None, outputs).eval(), padding.mode)
        module = AdaptedNet(net, padding, outputs).eval()
        probed = probe(module, shape)
    info = CheckpointInfo(sha256_file(weights), _LAYOUT)
    return CustomNet(name, module, info, probed.channels, padding, probed.min_size, outputs, spec)


def make_net(name: str) -> nn.Module:
    """Imports a callable and calls it to make a net; an `nn.Module` that exists already is copied instead.

    Args:
        name: `package.module:callable`, for instance `torchvision.models.segmentation:fcn_resnet50`.

    Returns:
        The net in float32 and evaluation mode; what the user's code has made itself is not changed.

    Raises:
        InputError: The callable cannot be imported or called, or returns no `nn.Module`.
        UsageError: `name` does not have that form.
    """
    names = net_name(name)
    with redirect_stdout(sys.stderr):  # stdout is for the output of the command
        made: Any = _imported(name, *names)
        if not isinstance(made, nn.Module):
            made = _called(name, made)
        made = _not_compiled(made)
    if not isinstance(made, nn.Module):
        raise InputError(f"{name} returns no net", got=f"a {type(made).__name__}", expected="a torch.nn.Module")
    # A copy, because two checkpoints would otherwise share a net that exists already or that its maker keeps.
    return _compiled_nowhere(copy.deepcopy(made)).float().eval()


def _not_compiled(module: Any) -> Any:
    """Returns what torch.compile has wrapped: export and comparison need the net as it was written."""
    while isinstance(module, nn.Module) and isinstance(module._modules.get("_orig_mod"), nn.Module):
        module = module._modules["_orig_mod"]
    return module


def _compiled_nowhere(net: nn.Module) -> nn.Module:
    for module in list(nn.Module.modules(net)):  # a net may have an attribute called `modules`
        module._compiled_call_impl = None  # what `net.compile()` sets
        for name, child in module._modules.items():
            module._modules[name] = _not_compiled(child)
    return net


def _imported(name: str, module: str, attribute: str) -> object:
    # `python` adds this folder and a console script does not. It stays, because modules may be imported later.
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        itself = module == missing or module.startswith(f"{missing}.")
        raise InputError(
            f"cannot import {module}, which `model` names",
            got=f"no module called {missing}",
            fix="run from the folder that holds it, or install it" if itself else f"install {missing}, which it needs",
        ) from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(f"cannot import {module}, which `model` names", got=reason(error)) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [key for key in dir(found) if not key.startswith("_") and callable(getattr(found, key))]
            raise InputError(
                f"{module} has no {attribute}, which `model` names", expected=f"one of {', '.join(sorted(public))}"
            )
        found = getattr(found, part)
    return found


def _called(name: str, maker: Any) -> object:
    if not callable(maker):
        raise InputError(f"{name} cannot be called", got=f"a {type(maker).__name__}", expected="a function or class")
    try:
        inspect.signature(maker).bind()
    except TypeError as error:
        raise InputError(
            f"{name} cannot be called without arguments",
            got=str(error),
            fix="write a function that calls it with the arguments your net was trained with, and name that function",
        ) from error
    except ValueError:
        pass  # a callable without a signature, such as a compiled one: only a call can tell
    try:
        return maker()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(f"{name} fails", got=reason(error)) from error


def reason(error: BaseException) -> str:
    """Returns the type of an exception and the first line of its message."""
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def load_strictly(net: nn.Module, path: Path, name: str, part: WeightsOptions | None = None) -> ModelSpec | None:
    """Loads weights into a net, by torch's own `load_state_dict`: every tensor of the net has to be there and no other.

    Args:
        net: The net; changed in place.
        path: A `.pth` or `.safetensors` file.
        name: What errors call the net.
        part: Which part of the file holds the weights.

    Returns:
        The spec in the file, or None.

    Raises:
        InputError: The file cannot be read; tensors are missing, unexpected or of another shape; or one is not finite.
    """
    tensors, spec = read_tensors(path, part)
    wanted = net.state_dict()
    state = fitted(tensors, wanted.keys(), path)
    for key, tensor in state.items():
        # Tensors that are not floats, such as the counters of batch normalisation, are left to load_state_dict.
        like = wanted.get(key, tensor)
        if isinstance(tensor, Tensor) and like.is_floating_point():
            state[key] = finite_float32(key, tensor, path)
    load_into(net, state, path, name)
    return spec
