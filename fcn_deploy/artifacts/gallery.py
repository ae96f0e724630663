"""The pictures that a deployment kept: the images on which an engine agrees the least with PyTorch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fcn_deploy.artifacts.json import integer, number, require, strings

# The folder of the pictures, beside the summary.
FOLDER = "report"

# What a picture shows, in the order in which pictures stand: the image, and labels of the ground truth, of PyTorch, of
# the engine, and where the last two differ.
KINDS = ("image", "truth", "pytorch", "engine", "difference")

# How a picture is called, in `FOLDER`.
PICTURE = re.compile(rf"\d\d_({'|'.join(KINDS)})\.(png|jpg)")


@dataclass(frozen=True)
class ShownImage:
    """One image, with what PyTorch and the engine make of it.

    Attributes:
        name: Of the image's file.
        agreement: Share of its pixels with the same label, 0..1.
        shape: [height, width] of the image; the pictures may be smaller.
        pictures: Names of files in the folder `report`, by what they show; there is no `truth` without labels.
    """

    name: str
    agreement: float
    shape: tuple[int, int]
    pictures: Mapping[str, str]

    def __post_init__(self) -> None:
        require(0 <= self.agreement <= 1, "summary gallery agreement", self.agreement, "a share, 0 to 1")
        for kind, file in self.pictures.items():
            found = PICTURE.fullmatch(file)
            fits = found is not None and found[1] == kind
            require(
                fits, "summary gallery picture", (kind, file), f"one of {', '.join(KINDS)}, and a file of that name"
            )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ShownImage:
        """Reads it from JSON.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        (name,) = strings([data["name"]], "summary gallery name")
        shape, pictures = data["shape"], data["pictures"]
        require(isinstance(shape, list) and len(shape) == 2, "summary gallery shape", shape, "[height, width]")
        height, width = (integer(size, "summary gallery shape") for size in shape)
        require(isinstance(pictures, Mapping), "summary gallery pictures", pictures, "a file by kind")
        strings(list(pictures.values()), "summary gallery pictures")
        return cls(name, number(data["agreement"], "summary gallery agreement"), (height, width), dict(pictures))


@dataclass(frozen=True)
class Gallery:
    """The images on which an engine agrees the least with PyTorch.

    Attributes:
        engine: The name of the engine's file.
        images: The one with the lowest agreement first.
    """

    engine: str
    images: tuple[ShownImage, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gallery:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        (engine,) = strings([data["engine"]], "summary gallery engine")
        images = data["images"]
        require(isinstance(images, list), "summary gallery images", images, "a list")
        return cls(engine, tuple(map(ShownImage.from_json, images)))
