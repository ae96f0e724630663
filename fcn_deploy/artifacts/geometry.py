"""How the published FCNs differ in shape, and how images are padded for other nets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from fcn_deploy.artifacts.json import integer, known_fields, require

PadMode = Literal["edge", "zero", "reflect"]
SizeDivisor: TypeAlias = int | Literal["auto"]


@dataclass(frozen=True)
class Geometry:
    """How one published FCN differs from another in shape.

    Attributes:
        fc6_kernel: Kernel size of fc6: 1, or 7 as in VGG16 and the paper.
        input_padding: 0 if conv1_1 has its usual padding of 1 and every map keeps its size. 100 as in the paper:
            conv1_1 pads by 100, nothing after the trunk is padded, and maps are cropped at fixed offsets.
        skip_scales: Factors of pool4 and pool3 before their score layers; 0.01 and 0.0001 in nets that were trained at
            once.

    Raises:
        InputError: A value is bad.
    """

    fc6_kernel: int = 1
    input_padding: int = 0
    skip_scales: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        shape = (self.fc6_kernel, self.input_padding)
        known = shape in ((1, 0), (7, 0), (7, 100))
        require(known, "geometry", shape, "fc6_kernel 1 or 7, input_padding 0, or 100 with 7")
        positive = len(self.skip_scales) == 2 and all(0 < scale < math.inf for scale in self.skip_scales)
        require(positive, "geometry skip_scales", self.skip_scales, "two positive numbers")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data, without `skip_scales` if they are 1."""
        data = asdict(self)
        if self.skip_scales == (1.0, 1.0):
            del data["skip_scales"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Geometry:
        """Builds it from the `geometry` object of a spec.

        Raises:
            InputError: A value is bad.
        """
        known = known_fields(cls, data)
        if "skip_scales" in known:
            known["skip_scales"] = tuple(known["skip_scales"])
        return cls(**known)


# The seed's: 1x1 fc6, no padding of the image.
SEED = Geometry()

# The published nets': https://github.com/shelhamer/fcn.berkeleyvision.org
PAPER = Geometry(fc6_kernel=7, input_padding=100)

# The skip scales of nets that were trained at once, not stage by stage.
AT_ONCE = (0.01, 0.0001)


@dataclass(frozen=True)
class AutoPadding:
    """Padding to multiples of a number that running the net finds out, if it needs any.

    Attributes:
        mode: As in `Padding`.
    """

    mode: PadMode = "edge"


@dataclass(frozen=True)
class Padding:
    """How images are padded for a net that works only at multiples of some size; the logits are cropped again.

    Attributes:
        divisor: Height and width are padded to the next multiple of it, at the bottom and the right; at least 2.
        mode: `edge` repeats the last row and column. `zero` adds zeros after the normalisation, and so the mean colour.
            `reflect` mirrors the image at its last row and column, again and again if it is smaller than the padding.
            These are numpy.pad's modes `edge`, `constant` and `reflect`.

    Raises:
        InputError: A value is bad.
    """

    divisor: int
    mode: PadMode = "edge"

    def __post_init__(self) -> None:
        require(integer(self.divisor, "padding divisor") >= 2, "padding divisor", self.divisor, "2 or more")
        require(self.mode in ("edge", "zero", "reflect"), "padding mode", self.mode, "edge, zero or reflect")

    def padded(self, size: int) -> int:
        """Returns the next multiple of the divisor."""
        # Not -(-size // divisor): this is traced, and ONNX rounds a negative quotient the other way.
        return (size + self.divisor - 1) // self.divisor * self.divisor
