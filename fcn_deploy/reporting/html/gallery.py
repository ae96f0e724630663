"""The pictures of a report, with what each of them shows in words."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from fcn_deploy.artifacts.gallery import ShownImage
from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.reporting.gallery import BOTH_WRONG, DIFFERENT, ENGINE_WRONG, IGNORED, PYTORCH_WRONG

_CAPTIONS = {
    "image": "image",
    "truth": "ground truth",
    "pytorch": "PyTorch",
    "engine": "engine",
    "difference": "difference",
}
_PNG = b"\x89PNG"


@dataclass(frozen=True)
class Picture:
    """A picture of an image.

    Attributes:
        source: Its content, as a `data:` address.
        caption: What kind it is.
        alt: What it shows, in words.
        sharp: Whether its pixels must not be smoothed.
    """

    source: str
    caption: str
    alt: str
    sharp: bool


@dataclass(frozen=True)
class Exhibit:
    """An image with its pictures."""

    name: str
    agreement: str
    size: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Swatch:
    """A colour and what it means."""

    color: Rgb
    text: str


@dataclass(frozen=True)
class Exhibition:
    """The gallery: which engine it is of, the images, and what the colours mean."""

    engine: str
    exhibits: tuple[Exhibit, ...]
    classes: tuple[Swatch, ...]
    differences: tuple[Swatch, ...]


def exhibition(summary: Summary, pictures: Mapping[str, bytes]) -> Exhibition | None:
    """Returns the gallery of a summary; None if it names no pictures, or if none of them is there."""
    gallery = summary.gallery
    if gallery is None or not pictures:
        return None
    exhibits = tuple(_exhibit(image, gallery.engine, pictures) for image in gallery.images)
    with_truth = any("truth" in image.pictures for image in gallery.images)
    spec = None if summary.origin is None else summary.origin.spec
    classes = [] if spec is None else list(map(Swatch, spec.palette, spec.classes))
    if with_truth:
        classes.append(Swatch(IGNORED, "ground truth says nothing"))
        differences = [
            Swatch(ENGINE_WRONG, "PyTorch is right, the engine is not"),
            Swatch(PYTORCH_WRONG, "the engine is right, PyTorch is not"),
            Swatch(BOTH_WRONG, "both are wrong, with different labels"),
            Swatch(DIFFERENT, "different labels where the ground truth says nothing"),
        ]
    else:
        differences = [Swatch(DIFFERENT, "different labels")]
    return Exhibition(
        gallery.engine, tuple(each for each in exhibits if each.pictures), tuple(classes), tuple(differences)
    )


def _exhibit(image: ShownImage, engine: str, pictures: Mapping[str, bytes]) -> Exhibit:
    height, width = image.shape
    words = {
        "image": f"The image {image.name}",
        "truth": f"Ground truth of {image.name} in the colours of the classes",
        "pytorch": f"Labels of PyTorch for {image.name} in the colours of the classes",
        "engine": f"Labels of {engine} for {image.name} in the colours of the classes",
        "difference": f"Where {engine} and PyTorch differ on {image.name}: {1 - image.agreement:.2%} of the pixels",
    }
    shown = tuple(
        Picture(_address(pictures[file]), _CAPTIONS[kind], words[kind], kind != "image")
        for kind, file in image.pictures.items()
        if file in pictures
    )
    return Exhibit(image.name, f"{image.agreement:.2%}", f"{height}x{width}", shown)


def _address(content: bytes) -> str:
    kind = "png" if content.startswith(_PNG) else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
