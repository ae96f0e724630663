"""`predict`: labels images and writes pictures of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fcn_deploy.artifacts.geometry import PadMode, SizeDivisor
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.data.folders import find_images
from fcn_deploy.data.images import read_image
from fcn_deploy.errors import FcnDeployError, InputError, UsageError
from fcn_deploy.evaluation.parity import run
from fcn_deploy.files import StrPath, as_path, make_folder, output_folder, real_path, write_bytes
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.reporting.pictures import KINDS, encode_png
from fcn_deploy.runtime.backend import Provider
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.runtime.tensorrt.settings import Specialization
from fcn_deploy.text import printable
from fcn_deploy.workflows.parameters import Size, image_size, outputs, padding
from fcn_deploy.workflows.references import NetCode, Runnable, check_runnables, name_of, opened

Kind = Literal["labels", "color", "overlay", "panel"]
OnError = Literal["stop", "skip"]
_SHOWN = 3  # failures in the message of an error


@dataclass(frozen=True)
class Failure:
    """A file that could not be labelled.

    Attributes:
        file: The file.
        error: Why, on one line.
    """

    file: Path
    error: str


@dataclass(frozen=True)
class Predictions:
    """What was written.

    Attributes:
        engine: Name of what labelled the images.
        images: How many were labelled.
        files: In the order of the images.
        failed: What could not be labelled; nothing unless `on_error` is `skip`.
    """

    engine: str
    images: int
    files: tuple[Path, ...]
    failed: tuple[Failure, ...] = ()

    def require_complete(self) -> None:
        """Raises if a file could not be labelled.

        Raises:
            InputError: One could not; the message names the first few, and says why.
        """
        if not self.failed:
            return
        total = self.images + len(self.failed)
        shown = "; ".join(failure.error for failure in self.failed[:_SHOWN])
        more = f"; and {len(self.failed) - _SHOWN} more" if len(self.failed) > _SHOWN else ""
        raise InputError(f"{len(self.failed)} of {total} files could not be labelled", got=f"{shown}{more}")

    def __repr__(self) -> str:
        return printable(f"Predictions({self.engine}, {self.images} images, {len(self.files)} files)")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        failed = [{"file": str(failure.file), "error": failure.error} for failure in self.failed]
        written = {"images": self.images, "files": list(map(str, self.files))}
        return {"engine": self.engine, **written, "failed": failed}


def predict(
    engine: Runnable,
    inputs: Sequence[StrPath] | StrPath,
    output: StrPath,
    *,
    save: Sequence[Kind] | str = ("labels", "overlay"),
    tile: str | Size | None = None,
    max_pixels: int | None = None,
    recursive: bool = False,
    on_error: OnError = "stop",
    model: str | None = None,
    size_divisor: SizeDivisor | None = None,
    pad_mode: PadMode | None = None,
    logits: str | int | None = None,
    resize_logits: ResizeMode | None = None,
    weights_key: str | None = None,
    weights_prefix: str | None = None,
    weights_ignore: Sequence[str] | str = (),
    threads: int | None = None,
    provider: Provider | None = None,
    device: int | None = None,
    device_name: str | None = None,
    fast_math: bool = False,
    allow_host_code: bool = False,
    contexts: int | None = None,
    graphs: int | None = None,
    specialization: Specialization | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Labels images and writes pictures: `NAME.labels.png`, `NAME.overlay.png` and so on.

    If an image cannot be read, it stops; the pictures of the images before stay. With `on_error="skip"` it goes on, and
    the result lists what failed.

    Args:
        engine: A file, what `build_engine` or `export` gave, or `pytorch:` and the path of a checkpoint.
        inputs: Images, folders of images, or patterns such as `frames/*.jpg`.
        output: Folder to write to; made if it does not exist.
        save: What to write of each image: `labels` (index image), `color` (mask), `overlay`, `panel` (image, overlay
            and legend).
        tile: `HxW` or (height, width): larger images are run in tiles of this size, so that memory does not grow with
            the image. The labels are those of the image as a whole.
        max_pixels: Most pixels that an image may have; about 179 million if None, as a guard against files that fill
            the memory.
        recursive: Whether sub-folders of folders are searched too. Pictures then go to the same sub-folders of the
            output.
        on_error: What a file does that is no image, is damaged or does not fit the engine: `stop`, or `skip` it and go
            on. An input that names nothing, and a picture that cannot be written, always stop.
        model: What makes the net of a checkpoint if it is a custom net.
        size_divisor: How that net is padded.
        pad_mode: Likewise.
        logits: Which of its outputs are the logits.
        resize_logits: How they are resized.
        weights_key: The entry of the checkpoint that holds the weights.
        weights_prefix: Only its tensors under this prefix are taken, without it.
        weights_ignore: Globs; its entries that match one are left out.
        threads: CPU threads; the library's default if None.
        provider: What ONNX Runtime runs on: `cpu` (the default) or `cuda`.
        device: Index of the GPU.
        device_name: What OpenVINO runs on: `CPU`, `GPU` or `NPU`; the CPU if None.
        fast_math: Lets ONNX Runtime multiply matrices of FP32 in BF16, on a 64-bit Arm CPU that has it.
        allow_host_code: Lets a TensorRT plan run code on the host.
        contexts: How many calls on a TensorRT plan run at the same time; 8 if None.
        graphs: How many CUDA graphs each of them keeps; 4 if None, and none with 0.
        specialization: When TensorRT-RTX compiles kernels for a shape: `lazy`, in the background; `eager`, before its
            first run; or `none`. If None, `eager` for plans of fixed shapes, else `lazy`.
        progress: Told of each image.

    Raises:
        ArtifactError: The engine does not fit this machine or its sidecar.
        DependencyError: A library, a driver or a GPU is missing.
        InputError: An image cannot be read, two would make the same files, or an input would be replaced.
        UsageError: Options do not go together.

    Example:
        >>> import fcn_deploy as fd
        >>> fd.predict("fcn8s.int8.onnx", "street/images", "out", save=("panel",))
    """
    kinds = _kinds(save)
    if max_pixels is not None and max_pixels < 1:
        raise UsageError("bad `max_pixels`", got=max_pixels, expected="1 or more")
    if on_error not in get_args(OnError):
        raise UsageError("unknown `on_error`", got=repr(on_error), expected="stop or skip")
    failed: list[Failure] = []

    def fail(path: Path, error: InputError) -> None:
        text = str(error) if str(path) in str(error) else f"{path}: {error}"
        failed.append(Failure(path, text))

    skipping = on_error == "skip"
    found = find_images(inputs, max_pixels=max_pixels, recursive=recursive, on_bad=fail if skipping else None)
    folder = as_path(output, "output")
    targets = _targets(found, kinds, folder)
    paths = tuple(found)
    size = image_size(tile, "tile")
    code = NetCode(
        model,
        padding(model, size_divisor, pad_mode),
        outputs(model, logits, resize_logits),
        weights_key,
        weights_prefix,
        weights_ignore,
    )
    runtime = RuntimeOptions(
        threads=threads,
        provider=provider,
        device=device,
        device_name=device_name,
        fast_math=fast_math,
        allow_host_code=allow_host_code,
        contexts=contexts,
        graphs=graphs,
        specialization=specialization,
        tile=size,
    )
    check_runnables((engine,), runtime, code)
    written = []
    with output_folder(folder), opened((engine,), runtime, code, progress) as (segmenter,):
        shown = (progress or Silent()).track(paths, len(paths), "predicting")
        for done, path in enumerate(shown):
            try:
                image = read_image(path, max_pixels=max_pixels)
                labels = segmenter(image) if size else run(segmenter, image).labels
            except FcnDeployError as error:
                if not (skipping and isinstance(error, InputError)):
                    raise _stopped(error, done, len(paths)) from error
                fail(path, error)
                continue
            try:
                make_folder(targets[path][0].parent)
                for kind, target in zip(kinds, targets[path], strict=True):
                    write_bytes(target, encode_png(KINDS[kind](image, labels, segmenter.spec)))
                    written.append(target)
            except FcnDeployError as error:
                raise _stopped(error, done, len(paths)) from error
    labelled = len(written) // len(kinds)
    return Predictions(name_of(engine), labelled, tuple(written), tuple(failed))


def _stopped(error: FcnDeployError, done: int, total: int) -> FcnDeployError:
    what = f"stopped with {done} of {total} images done: {error.what}"
    return type(error)(what, got=error.got, expected=error.expected, fix=error.fix)


def _kinds(save: Sequence[str] | str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(save.split(",") if isinstance(save, str) else save))
    unknown = [kind for kind in kinds if kind not in get_args(Kind)]
    if unknown or not kinds:
        expected = ", ".join(get_args(Kind))
        raise UsageError("unknown kind of picture in `save`", got=", ".join(unknown) or "nothing", expected=expected)
    return kinds


def _targets(images: Mapping[Path, Path], kinds: tuple[str, ...], output: Path) -> dict[Path, list[Path]]:
    """Returns the files of each image; it is an error if two images have the same, or if a file is an input.

    Args:
        images: Each image, and the sub-folder in which it was found.
        kinds: Of pictures.
        output: The folder.
    """
    inputs = {real_path(path) for path in images}
    sources: dict[Path, Path] = {}
    targets = {}
    for path, place in images.items():
        name = place / path.stem
        if name in sources:
            got = f"{sources[name]} and {path}"
            raise InputError("two images would make the same files", got=got, fix="run them apart")
        sources[name] = path
        targets[path] = [output / place / f"{path.stem}.{kind}.png" for kind in kinds]
        over = [target for target in targets[path] if real_path(target) in inputs]
        if over:
            fix = "choose another folder with `output`"
            raise InputError("an output would replace an input", got=str(over[0]), fix=fix)
    return targets
