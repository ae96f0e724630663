"""What commands measure with: references, and images with or without ground truth. Needs no host library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.labels import find_labels, read_labels
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.comparison import Sample
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.backend import PLAN_SUFFIXES, Provider

PYTORCH = "pytorch:"

_SILENT = Silent()

_TAKERS = {
    "threads": "an ONNX engine or model, or a checkpoint",
    "provider": "an ONNX engine or model",
    "device": "a TensorRT plan, or --provider cuda",
    "allow_host_code": "a TensorRT plan",
}


def open_reference(
    reference: str,
    spec: ModelSpec | None = None,
    *,
    model: str | None = None,
    padding: Padding | None = None,
    shape: ImageShape | None = None,
    threads: int | None = None,
    provider: Provider | None = None,
    device: int | None = None,
    allow_host_code: bool = False,
    tile: tuple[int, int] | None = None,
) -> Segmenter:
    """Opens an engine, an exported model, or a checkpoint run in PyTorch.

    Args:
        reference: A path, or `pytorch:` and the path of a checkpoint.
        spec: Of the net a checkpoint is compared with: classes and normalisation are taken from it. Where None, the
            checkpoint's own or the default.
        model: What makes the checkpoint's net, `package.module:callable`, where it is one of the user's own.
        padding: How that net is padded; the spec's where there is one, with which it must agree.
        shape: The one shape that what a checkpoint is compared with takes; None where it takes any.
        threads: CPU threads.
        provider: What ONNX Runtime runs on; its CPU provider where None.
        device: Index of the GPU.
        allow_host_code: Lets a plan run code on the host.
        tile: Height and width of the tiles that larger images are run in.

    Raises:
        ArtifactError: The engine does not fit this machine or its sidecar.
        DependencyError: A library, the provider, a driver or the GPU is missing.
        InputError: A file cannot be read, or the checkpoint has other classes than the spec.
        UsageError: The spec is of a net of the user's own, and `model` does not say what makes it; or an option does
            not go with what is opened.
    """
    if not reference.startswith(PYTORCH):
        return Segmenter(
            reference, threads=threads, provider=provider, device=device, allow_host_code=allow_host_code, tile=tile
        )
    if provider is not None or device is not None or allow_host_code:
        raise UsageError("checkpoints run on the CPU", got="options of the GPU", fix="leave them out")
    # Torch is for whoever names a checkpoint; a device that compares two engines does not have it.
    from fcn_deploy.models.backend import TorchBackend
    from fcn_deploy.models.load import load_net, load_reference
    from fcn_deploy.models.spec_options import SpecOptions

    if spec is not None and padding not in (None, spec.padding):
        raise UsageError("the engine's net is padded otherwise", got=padding, expected=spec.padding, fix="leave it out")
    weights = Path(reference.removeprefix(PYTORCH))
    net = (
        load_net(weights, SpecOptions(model=model, padding=padding))
        if spec is None
        else load_reference(weights, spec, model, shape)
    )
    return Segmenter(TorchBackend(net.module, net.spec.num_classes, threads=threads), spec=net.spec, tile=tile)


def open_all(
    names: Sequence[str],
    *,
    model: str | None = None,
    padding: Padding | None = None,
    threads: int | None = None,
    provider: Provider | None = None,
    device: int | None = None,
    allow_host_code: bool = False,
    tile: tuple[int, int] | None = None,
) -> dict[str, Segmenter]:
    """Opens several engines, models and checkpoints to be compared with each other.

    Checkpoints come last and are run with the spec of the first engine or model, whose normalisation was stated.

    Args:
        names: As for `open_reference`; one that is named twice is opened once.
        model: What makes the net of the checkpoints among them, where it is one of the user's own.
        padding: How that net is padded, where no engine among them says.
        threads: CPU threads, of those among them that run on the CPU or in ONNX Runtime.
        provider: What the ONNX engines and models among them run on; the CPU where None.
        device: Index of the GPU, for plans, and for ONNX with the provider `cuda`.
        allow_host_code: Lets the plans among them run code on the host.
        tile: Height and width of the tiles that larger images are run in.

    Returns:
        Segmenters by name, in the order of the names; the caller closes them.

    Raises:
        FcnDeployError: One cannot be opened; the others are closed.
        UsageError: `model`, and no checkpoint; or an option that none of them takes.
    """
    if model is not None and not any(name.startswith(PYTORCH) for name in names):
        raise UsageError("--model makes the net of a checkpoint", got="no pytorch:CHECKPOINT", fix="leave it out")
    if padding is not None and model is None:
        raise UsageError("--size-divisor is for a net that --model makes", fix="leave it out")
    given = {"threads": threads, "provider": provider, "device": device, "allow_host_code": allow_host_code or None}
    asked = {option: value for option, value in given.items() if value is not None}
    for option in asked:
        if not any(option in _takes(name, provider) for name in names):
            flag = option.replace("_", "-")
            raise UsageError(f"nothing here takes --{flag}", got=", ".join(names), expected=_TAKERS[option])
    opened: dict[str, Segmenter] = {}
    with ExitStack() as stack:
        for name in sorted(dict.fromkeys(names), key=lambda name: name.startswith(PYTORCH)):
            first = next(iter(opened.values()), None)
            spec, shape = (first.spec, first.fixed_shape) if first else (None, None)
            own: Any = {option: value for option, value in asked.items() if option in _takes(name, provider)}
            opened[name] = stack.enter_context(
                open_reference(name, spec, model=model, padding=padding, shape=shape, tile=tile, **own)
            )
        stack.pop_all()
    return {name: opened[name] for name in names}


def _takes(name: str, provider: Provider | None) -> tuple[str, ...]:
    """Which of the options that say where and how something runs are for `name`."""
    if name.startswith(PYTORCH):
        return ("threads",)
    if Path(name).suffix in PLAN_SUFFIXES:
        return ("device", "allow_host_code")
    return ("threads", "provider", "device") if provider == "cuda" else ("threads", "provider")


def samples(
    images: ImageFolder,
    labels: Path | None,
    what: str,
    *,
    palette: Sequence[Rgb] = (),
    ignore_index: int | None = None,
    progress: Progress = _SILENT,
) -> Iterator[Sample]:
    """Yields images with their ground truth, or with None where there is no folder of labels.

    Raises:
        InputError: An image has no labels, or a file cannot be read.
        UsageError: Images are resized while labels are not.
    """
    if labels is None:
        return ((image, None) for image in progress.track(images, len(images), what))
    if images.size is not None:
        raise UsageError("labels cannot be resized along with the images", got=f"--labels {labels} with a size")
    truths = (read_labels(path, palette, ignore_index) for path in find_labels(images.paths, labels))
    return zip(progress.track(images, len(images), what), truths, strict=True)
