"""The key layouts of published checkpoints: how each is recognised, and what `FCN` calls its keys."""

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
        first: The key of the first convolution's weights, which no other layout has.
        upscores: The key of the last deconvolution, by the stride of the net.
        renames: Patterns of keys and their replacements, applied in order.
        fixed_geometry: The geometry of every checkpoint of this layout; None if the tensors tell it.
        normalization: The normalisation that nets of this layout were trained with; None if the layout does not say.
    """

    name: str
    first: str
    upscores: Mapping[Stride, str]
    renames: tuple[tuple[str, str], ...] = ()
    fixed_geometry: Geometry | None = None
    normalization: Normalization | None = None

    @property
    def signs(self) -> str:
        """The keys that `knows` looks for, in words."""
        return f"{self.first}, score_fr.weight and one of {', '.join(self.upscores.values())}"

    def knows(self, state: State) -> bool:
        """Returns whether a state_dict has this layout."""
        score = state.get("score_fr.weight")
        plain = score is not None and score.ndim == 4 and 0 not in score.shape
        return plain and self.first in state and sum(key in state for key in self.upscores.values()) == 1

    def stride(self, state: State) -> Stride:
        """Returns the stride of a net from its state_dict, which must have this layout."""
        return next(stride for stride, key in self.upscores.items() if key in state)

    def rename(self, state: State, stride: Stride) -> dict[str, Tensor]:
        """Returns the state_dict under the names of an `FCN` of that stride."""
        return {dense_name(self._renamed(key), stride): tensor for key, tensor in state.items()}

    def geometry(self, state: State) -> Geometry:
        """Returns the geometry of a net from its renamed state_dict."""
        if self.fixed_geometry is not None:
            return self.fixed_geometry
        fc6 = next((state[key] for key in ("fc6.weight", "fc6.0.weight") if key in state), None)
        return Geometry(fc6_kernel=7 if fc6 is not None and fc6.shape[2:] == (7, 7) else 1)

    def _renamed(self, key: str) -> str:
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


def dense_name(key: str, stride: Stride) -> str:
    """Renames fc6 and fc7 as an `FCN` of that stride has them: pairs in FCN-32s, plain convolutions in finer nets."""
    return re.sub(r"^(fc[67])(?:\.0)?\.(weight|bias)$", r"\1.0.\2" if stride == 32 else r"\1.\2", key)


_SEED = Layout(
    name="seed",
    first="conv1_1.0.weight",
    upscores={32: "upscore32.weight", 16: "upscore16.weight", 8: "upscore8.weight"},
)

# https://github.com/wkentaro/pytorch-fcn, which has the weights of the published Caffe nets.
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
    fixed_geometry=PAPER,
    normalization=CAFFE,
)

LAYOUTS = (_SEED, _PYTORCH_FCN)


def layout_normalization(name: str) -> Normalization | None:
    """Returns the normalisation that nets of a layout were trained with; None if the layout does not say."""
    return next((layout.normalization for layout in LAYOUTS if layout.name == name), None)
