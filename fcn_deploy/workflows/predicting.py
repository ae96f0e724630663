"""`predict`: labels images and writes pictures of the labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from fcn_deploy.artifacts.geometry import PadMode, SizeDivisor
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.data.folders import OnBad
from fcn_deploy.data.frames import FrameSource, Selection, is_count
from fcn_deploy.data.inputs import Inputs, find_inputs
from fcn_deploy.data.keeping_up import WAITING, KeepingUp
from fcn_deploy.data.live import file_stem, open_live
from fcn_deploy.data.video import Video
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import StrPath, as_path, make_folder, output_folder, real_path, write_bytes
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.reporting.legend import legend_of_classes
from fcn_deploy.reporting.pictures import encode_png
from fcn_deploy.reporting.window import Window
from fcn_deploy.runtime.backend import Provider
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.runtime.tensorrt.settings import Specialization
from fcn_deploy.workflows.labelled_images import label_images
from fcn_deploy.workflows.labelled_videos import label_video
from fcn_deploy.workflows.labelling import Labelling
from fcn_deploy.workflows.parameters import Size, image_size, outputs, padding
from fcn_deploy.workflows.predictions import Failure, Predictions, VideoPrediction, together
from fcn_deploy.workflows.references import NetCode, Runnable, check_runnables, name_of, opened

Kind = Literal["labels", "color", "overlay", "panel", "legend"]
OnError = Literal["stop", "skip"]

_log = logging.getLogger(__name__)
_LEGEND = "legend"  # the one kind that is not of a frame


def predict(
    engine: Runnable,
    inputs: Sequence[StrPath] | StrPath,
    output: StrPath,
    *,
    save: Sequence[Kind] | str = ("labels", "overlay"),
    tile: str | Size | None = None,
    max_pixels: int | None = None,
    recursive: bool = False,
    every: int = 1,
    max_frames: int | None = None,
    batch: int = 1,
    display: bool = False,
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
    """Labels whatever has frames, and writes pictures: `NAME.labels.png`, `NAME.overlay.png` and so on.

    Of a video, a camera or a stream it writes videos with the same timing: `NAME.overlay.mp4`, and `NAME.labels.mp4`
    without loss. If a file cannot be read, it stops; what was made of the files before stays. With `on_error="skip"` it
    goes on, and the result lists what failed. What a camera or a stream has given is written when `KeyboardInterrupt`
    ends it.

    Args:
        engine: A file, what `build_engine` or `export` gave, or `pytorch:` and the path of a checkpoint.
        inputs: Images, videos, folders of them, patterns such as `frames/**/*.jpg`; or alone, as text, a camera,
            `camera:0`, or a stream, `rtsp://HOST/PATH`.
        output: Folder to write to; made if it does not exist. What lies in it is no input of a folder around it.
        save: What to write of each image and video: `labels` (index image), `color` (mask), `overlay`, `panel` (image,
            overlay and legend); and `legend`, one picture of all classes.
        tile: `HxW` or (height, width): larger images are run in tiles of this size, so that memory does not grow with
            the image. The labels are those of the image as a whole.
        max_pixels: Most pixels that an image or a frame may have; about 179 million if None, as a guard against files
            that fill the memory.
        recursive: Whether sub-folders of folders are searched too. Pictures then go to the same sub-folders of the
            output.
        every: Every how many-th frame of each video, camera or stream is taken, beginning with the first; of images,
            every how many-th image.
        max_frames: At most so many frames of each are labelled, and at most so many images; all if None.
        batch: At most so many neighbours of equal size run together.
        display: Shows the overlay in a window. Closing it, `q` or Escape ends the run; what was labelled is written.
        on_error: What a file does that is no image, is damaged or does not fit the engine: `stop`, or `skip` it and go
            on. Of a damaged video the frames are skipped that cannot be read. An input that names nothing, and a
            picture that cannot be written, always stop.
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
        progress: Told of each frame.

    Raises:
        ArtifactError: The engine does not fit this machine or its sidecar.
        DependencyError: A library, a driver, a GPU or a screen is missing.
        InputError: A file cannot be read, two would make the same files, or an input would be replaced.
        UsageError: Options do not go together.

    Example:
        >>> import fcn_deploy as fd
        >>> fd.predict("fcn8s.int8.onnx", "street/images", "out", save=("panel",))
    """
    kinds = _kinds(save)
    if max_pixels is not None and not is_count(max_pixels):
        raise UsageError("bad `max_pixels`", got=repr(max_pixels), expected="1 or more")
    if on_error not in get_args(OnError):
        raise UsageError("unknown `on_error`", got=repr(on_error), expected="stop or skip")
    if not is_count(batch):
        raise UsageError("bad `batch`", got=repr(batch), expected="1 or more")
    selection = Selection(every, max_frames)
    folder = as_path(output, "output")
    skipping = on_error == "skip"
    failures = _Failures()
    listener = failures.add if skipping else None
    found = find_inputs(inputs, max_pixels=max_pixels, recursive=recursive, on_bad=listener, output=folder)
    targets = _Targets.of(found, kinds, folder, selection)
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
    with ExitStack() as stack:
        stack.enter_context(output_folder(folder))
        live = None if found.live is None else stack.enter_context(open_live(found.live))
        window = stack.enter_context(Window(name_of(engine))) if display else None
        (segmenter,) = stack.enter_context(opened((engine,), runtime, code, progress))
        labelling = Labelling(
            segmenter, targets.kinds, size is not None, batch, selection, skipping, progress or Silent(), window
        )
        legend = _write_legend(segmenter.spec, targets.legend)
        if not targets.kinds and not display:
            return Predictions(name_of(engine), 0, tuple(legend), failures.all)
        images = label_images(labelling, targets.images, failures.add, max_pixels)
        videos = []
        for path, files in targets.videos.items():
            with _opened_video(path, max_pixels, listener) as video:
                videos += [] if video is None else _label_video(labelling, video, files, failures)
        if live is not None:
            newest = stack.enter_context(KeepingUp(live, selection, max(WAITING, batch)))
            videos += _label_video(labelling, newest, targets.live, failures)
    written = (*legend, *images.files, *(file for video in videos for file in video.files))
    speed = together(name_of(engine), [images.speed, *(video.speed for video in videos)])
    return Predictions(name_of(engine), images.count, written, failures.all, tuple(videos), speed)


class _Failures:
    """What could not be labelled."""

    def __init__(self) -> None:
        self._failed: list[Failure] = []

    def add(self, path: Path, error: InputError) -> None:
        text = str(error) if str(path) in str(error) else f"{path}: {error}"
        self._failed.append(Failure(path, text))

    @property
    def all(self) -> tuple[Failure, ...]:
        return tuple(self._failed)


def _opened_video(path: Path, max_pixels: int | None, on_bad: OnBad | None) -> AbstractContextManager[Video | None]:
    """Opens a video; gives None of one that cannot be opened, if `on_bad` is told instead."""
    try:
        return Video.open(path, max_pixels=max_pixels)
    except InputError as error:
        if on_bad is None:
            raise
        on_bad(path, error)
        return nullcontext()


def _label_video(
    labelling: Labelling, video: FrameSource, files: Sequence[Path], failures: _Failures
) -> list[VideoPrediction]:
    if labelling.ended:
        return []
    if video.has_audio:
        _log.info("%s: its sound is left out", video.name)
    for file in files[:1]:
        make_folder(file.parent)
    made, error = label_video(labelling, video, files)
    if error is not None:
        if made is not None and made.damaged > 1:
            error.advise(f"{made.damaged} such in all")
        failures.add(video.path or Path(video.name), error)
    return [] if made is None else [made]


def _write_legend(spec: ModelSpec, path: Path | None) -> list[Path]:
    if path is None:
        return []
    write_bytes(path, encode_png(legend_of_classes(spec)))
    return [path]


def _kinds(save: Sequence[str] | str) -> tuple[str, ...]:
    expected = ", ".join(get_args(Kind))
    if not isinstance(save, Iterable):
        raise UsageError("bad `save`", got=repr(save), expected=expected)
    listed = save.split(",") if isinstance(save, str) else list(save)
    if not all(isinstance(kind, str) for kind in listed):
        raise UsageError("bad `save`", got=repr(save), expected=expected)
    kinds = tuple(dict.fromkeys(listed))
    unknown = [kind for kind in kinds if kind not in get_args(Kind)]
    if unknown or not kinds:
        raise UsageError("unknown kind of picture in `save`", got=", ".join(unknown) or "nothing", expected=expected)
    return kinds


@dataclass(frozen=True)
class _Targets:
    """The files to write: of each image and video, and of the camera or stream, one for each kind of picture."""

    kinds: tuple[str, ...]
    images: Mapping[Path, list[Path]]
    videos: Mapping[Path, list[Path]]
    live: list[Path]
    legend: Path | None

    @classmethod
    def of(cls, found: Inputs, kinds: tuple[str, ...], output: Path, selection: Selection) -> _Targets:
        """Chooses the files.

        Raises:
            InputError: Two inputs would make the same files, or a file is an input.
        """
        of_frames = tuple(kind for kind in kinds if kind != _LEGEND)
        taken = dict(list(found.images.items())[:: selection.every][: selection.most])
        legend = output / f"{_LEGEND}.png" if _LEGEND in kinds else None

        def files(name: Path, suffix: str) -> list[Path]:
            return [output / name.parent / f"{name.name}.{kind}{suffix}" for kind in of_frames]

        images = {path: files(place / path.stem, ".png") for path, place in taken.items()}
        videos = {path: files(place / path.stem, ".mp4") for path, place in found.videos.items()}
        live = [] if found.live is None else files(Path(file_stem(found.live)), ".mp4")
        for places in (taken, found.videos):
            _check_names(places)
        _check_not_inputs(found, chain([legend] if legend else [], *images.values(), *videos.values()))
        return cls(of_frames, images, videos, live, legend)


def _check_names(places: Mapping[Path, Path]) -> None:
    sources: dict[Path, Path] = {}
    for path, place in places.items():
        name = place / path.stem
        if name in sources:
            got = f"{sources[name]} and {path}"
            raise InputError("two inputs would make the same files", got=got, fix="run them apart")
        sources[name] = path


def _check_not_inputs(found: Inputs, files: Iterable[Path]) -> None:
    inputs = {real_path(path) for path in (*found.images, *found.videos)}
    over = [file for file in files if real_path(file) in inputs]
    if over:
        fix = "choose another folder with `output`"
        raise InputError("an output would replace an input", got=str(over[0]), fix=fix)
