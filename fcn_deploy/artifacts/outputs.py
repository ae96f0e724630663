"""Which of a custom net's outputs are its logits, and how they come to the size of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fcn_deploy.artifacts.json import require

ResizeMode = Literal["bilinear", "nearest"]


@dataclass(frozen=True)
class Outputs:
    """What is taken from what a custom net returns.

    Attributes:
        logits: The key, attribute or index of the logits, such as `out` or `0`; for nested outputs with dots, such as
            `heads.0`. None if they are the only tensor, or the one under `out` or `logits`.
        resize: How logits are resized to the size of the image: `bilinear` (torch's `align_corners=False`) or
            `nearest`. None if they have that size.

    Raises:
        InputError: A value is bad.
    """

    logits: str | None = None
    resize: ResizeMode | None = None

    def __post_init__(self) -> None:
        given = self.logits is None or (isinstance(self.logits, str) and bool(self.logits))
        require(given, "outputs logits", self.logits, "a name or an index")
        require(self.resize in (None, "bilinear", "nearest"), "outputs resize", self.resize, "bilinear or nearest")
