"""The parts of training that do not depend on what is trained.

The scripts in this folder are run as `python tools/train.py` and import each other by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.errors import DependencyError, InputError, UsageError
from fcn_deploy.files import check_writable, write_bytes


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Returns the learning rate of a step as a share of the highest, 0..1: a rise along a line, a fall along a cosine.

    The fall is that of Loshchilov and Hutter, https://arxiv.org/abs/1608.03983, without restarts.

    Args:
        step: From 0.
        steps: In all, more than `warmup`.
        warmup: After how many steps the highest rate is reached.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def shuffled(place: int, count: int, seed: int) -> int:
    """Returns which of `count` things comes at a place of the endless sequence in which each comes once an epoch."""
    epoch, index = divmod(place, count)
    return int(_epoch_order(epoch, count, seed)[index])


@lru_cache(maxsize=2)
def _epoch_order(epoch: int, count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


def rarity_weights(shares: NDArray[np.float64]) -> Tensor:
    """Returns what a pixel of each class counts in the loss: the root of how much rarer it is than the median class.

    Without it a net learns people and poles, a hundredth of the pixels each, long after everything else.

    Args:
        shares: float64 [C], the share of each class in all pixels; classes without pixels do not change the median.

    Returns:
        float32 [C].
    """
    return torch.from_numpy(np.sqrt(np.median(shares[shares > 0]) / np.maximum(shares, 1e-4))).float()


def adamw_groups(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Returns AdamW's groups of parameters: biases do not decay."""
    parameters = list(parameters)
    decayed = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    return [
        {"params": decayed, "lr": lr, "weight_decay": weight_decay},
        {"params": others, "lr": lr, "weight_decay": 0.0},
    ]


def descend(loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> float:
    """Takes one step down the loss, the gradient's norm held to `clip`, and returns the loss.

    Raises:
        InputError: The loss is not finite; the weights are as they were.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise InputError("the loss is not finite", got=value, fix="lower the learning rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return value


def set_dropout(model: nn.Module, share: float) -> None:
    """Sets the share of channels dropped after fc6 and fc7, 0..1."""
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = share


def save_net(model: nn.Module, spec: ModelSpec, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes the weights as safetensors, atomically, with the spec in the file's metadata.

    Raises:
        InputError: The path cannot be written.
    """
    state = {key: tensor.detach().cpu().to(dtype).contiguous() for key, tensor in model.state_dict().items()}
    write_bytes(path, safetensors.torch.save(state, metadata={METADATA_KEY: spec.dumps()}))


def find_device(name: str) -> torch.device:
    """Returns a device after making sure that it is there.

    Raises:
        DependencyError: It is not.
    """
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts that it has it
        raise DependencyError(
            f"there is no device {name!r}",
            got=str(error).split("\n")[0],
            expected="cpu, or cuda with a GPU, its driver, and a torch that was built for it",
        ) from error


def check_output(output: Path, *inputs: Path | None) -> None:
    """Checks, before hours of training, that the output is safetensors, can be written, and is not an input.

    Raises:
        InputError: It cannot be written.
        UsageError: It has another suffix, or is an input.
    """
    if output.suffix != ".safetensors":
        raise UsageError("the output's suffix does not fit", got=str(output), expected="a name in .safetensors")
    if any(path is not None and path.resolve() == output.resolve() for path in inputs):
        raise UsageError("the output would replace an input", got=str(output), fix="give it another name")
    check_writable(output)
