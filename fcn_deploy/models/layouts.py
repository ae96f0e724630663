"""The key layouts that checkpoints come in: how each is recognised, and what its keys are called here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fcn_deploy.artifacts.geometry import PAPER, Geometry
from fcn_deploy.artifacts.normalization import CAFFE, Normalization
from fcn_deploy.models.fcn import Stride

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One way of naming the tensors of an FCN.

    Attributes:
        name: As specs record it.
        first: The key of the first convolution's weights, which tells the layouts apart.
        upscores: The key of the last deconvolution, by the stride of the net.
        renames: Patterns of keys and what takes their place, applied in order.
        shape: The geometry that such a checkpoint has, or None where the tensors tell it.
        normalization: What nets of this layout were trained with, or None where the layout does not say.
    """

    name: str
    first: str
    upscores: Mapping[Stride, str]
    renames: tuple[tuple[str, str], ...] = ()
    shape: Geometry | None = None
    normalization: Normalization | None = None

    @property
    def signs(self) -> str:
        """What `knows` looks for, in words."""
        return f"{self.first}, score_fr.weight and one of {', '.join(self.upscores.values())}"

    def knows(self, state: State) -> bool:
        """Returns whether a state_dict has this layout."""
        score = state.get("score_fr.weight")
        plain = score is not None and score.ndim == 4 and 0 not in score.shape
        return plain and self.first in state and sum(key in state for key in self.upscores.values()) == 1

    def stride(self, state: State) -> Stride:
        """Returns the stride of a net whose state_dict this layout knows."""
        return next(stride for stride, key in self.upscores.items() if key in state)

    def rename(self, state: State, stride: Stride) -> dict[str, Tensor]:
        """Returns the state_dict under the names of our FCN of that stride."""
        return {dense_name(self._renamed(key), stride): tensor for key, tensor in state.items()}

    def geometry(self, state: State) -> Geometry:
        """Returns the geometry of a net, from its renamed state_dict."""
        if self.shape is not None:
            return self.shape
        fc6 = next((state[key] for key in ("fc6.weight", "fc6.0.weight") if key in state), None)
        return Geometry(fc6_kernel=7 if fc6 is not None and fc6.shape[2:] == (7, 7) else 1)

    def _renamed(self, key: str) -> str:
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


def dense_name(key: str, stride: Stride) -> str:
    """Gives fc6 and fc7 the names they have at this stride: pairs in FCN-32s, plain convolutions in the finer nets."""
    return re.sub(r"^(fc[67])(?:\.0)?\.(weight|bias)$", r"\1.0.\2" if stride == 32 else r"\1.\2", key)


_SEED = Layout(
    name="seed",
    first="conv1_1.0.weight",
    upscores={32: "upscore32.weight", 16: "upscore16.weight", 8: "upscore8.weight"},
)

# https://github.com/wkentaro/pytorch-fcn, whose weights are those of the published Caffe nets.
_PYTORCH_FCN = Layout(
    name="pytorch-fcn",
    first="conv1_1.weight",
    upscores={32: "upscore.weight", 16: "upscore16.weight", 8: "upscore8.weight"},
    renames=(
        (r"^(conv\d_\d)\.", r"\1.0."),
        (r"^(score_pool[34])\.", r"\1_fr."),
        (r"^upscore_pool4\.", "upscore2_pool4."),
        (r"^upscore\.", "upscore32."),
    ),
    shape=PAPER,
    normalization=CAFFE,
)

LAYOUTS = (_SEED, _PYTORCH_FCN)


def layout_normalization(name: str) -> Normalization | None:
    """Returns what nets of a layout were trained with, or None where the layout does not say."""
    return next((layout.normalization for layout in LAYOUTS if layout.name == name), None)
