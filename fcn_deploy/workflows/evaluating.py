"""`evaluate`: the accuracy of an engine against ground truth, and what it loses against a reference."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fcn_deploy.artifacts.geometry import PadMode, SizeDivisor
from fcn_deploy.artifacts.measures import Drop, GroundTruth, Parity
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.accuracy import (
    Matrix,
    class_iou,
    frequency_weighted_iou,
    mean_iou,
    pixel_accuracy,
)
from fcn_deploy.evaluation.comparison import compare, confusion_matrices
from fcn_deploy.evaluation.truth import chance_warnings, parity_warnings, truth_warnings
from fcn_deploy.files import StrPath
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.backend import Provider
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.runtime.tensorrt.settings import Specialization
from fcn_deploy.text import printable
from fcn_deploy.workflows.image_sizes import check_image_sizes
from fcn_deploy.workflows.parameters import image_folder, outputs, padding
from fcn_deploy.workflows.references import NetCode, Runnable, check_not_itself, check_runnables, name_of, opened
from fcn_deploy.workflows.samples import LabelMapping, TruthOptions, samples
from fcn_deploy.workflows.truth import check_pairs, check_truth, with_ignored

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How labels compare with ground truth; definitions as in section 5 of https://arxiv.org/abs/1411.4038.

    Attributes:
        classes: Names of the classes.
        confusion: int64 [C, C], rows truth, columns labels: how many pixels.
    """

    classes: tuple[str, ...]
    confusion: Matrix

    def __repr__(self) -> str:
        return f"Accuracy(mIoU {self.miou:.2f}, pixel accuracy {self.pixel_accuracy:.2f}, {len(self.classes)} classes)"

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur, in points, 0..100."""
        return float(mean_iou(self.confusion))

    @property
    def iou(self) -> dict[str, float]:
        """Intersection over union by class, in points; NaN for a class that occurs in neither."""
        return dict(zip(self.classes, class_iou(self.confusion).tolist(), strict=True))

    @property
    def pixel_accuracy(self) -> float:
        """Share of pixels with the right label, in points."""
        return pixel_accuracy(self.confusion)

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of `iou`, weighted by how many pixels are of each class, in points."""
        return frequency_weighted_iou(self.confusion)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        return {
            "miou": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "frequency_weighted_iou": self.frequency_weighted_iou,
            "iou": self.iou,
            "confusion": self.confusion.tolist(),
        }


@dataclass(frozen=True, eq=False)
class Against:
    """What an engine loses against a reference on the same images.

    Attributes:
        name: Of the reference.
        accuracy: Of the reference.
        parity: Of the engine with the reference.
        drop: Of mIoU: reference minus engine, in points, with its 95% interval.
    """

    name: str
    accuracy: Accuracy
    parity: Parity
    drop: Drop


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The accuracy of an engine.

    Attributes:
        engine: Name of what was evaluated.
        images: How many.
        ignore_index: Truth that does not count, the first of `truth.ignore_indices`; None if all does.
        accuracy: Of the engine.
        reference: The comparison with a reference; None if there was none.
        truth: What the ground truth says, and what it cannot say.
        warnings: What must be known before the figures are believed, a sentence each.
    """

    engine: str
    images: int
    ignore_index: int | None
    accuracy: Accuracy
    reference: Against | None = None
    truth: GroundTruth | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        against = "" if self.reference is None else f", mIoU drop {self.reference.drop.points:.2f}"
        return printable(f"Evaluation({self.engine}, {self.images} images, mIoU {self.miou:.2f}{against})")

    @property
    def miou(self) -> float:
        """Mean intersection over union of the engine, in points, 0..100."""
        return self.accuracy.miou

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        facts = {"engine": self.engine, "images": self.images, "ignore_index": self.ignore_index}
        truth = None if self.truth is None else self.truth.to_json()
        data = {**facts, **self.accuracy.to_json(), "truth": truth, "warnings": list(self.warnings)}
        if self.reference is not None:
            parity = self.reference.parity
            data["reference"] = {
                "name": self.reference.name,
                **self.reference.accuracy.to_json(),
                "agreement": parity.agreement,
                "agreement_low": parity.agreement_low,
                "agreement_high": parity.agreement_high,
                "only_label": parity.only_label,
                "reference_not_finite": parity.reference_not_finite,
                "engine_not_finite": parity.engine_not_finite,
                "miou_drop": asdict(self.reference.drop),
            }
        return data


def evaluate(
    engine: Runnable,
    data: StrPath | ImageFolder,
    labels: StrPath,
    *,
    ignore_index: int | Sequence[int] | None = None,
    label_map: LabelMapping | None = None,
    label_suffix: str | None = None,
    recursive: bool = False,
    reference: Runnable | None = None,
    max_images: int | None = None,
    batch: int = 1,
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
) -> Evaluation:
    """Measures the accuracy of an engine against ground truth.

    Args:
        engine: A file, what `build_engine` or `export` gave, or `pytorch:` and the path of a checkpoint.
        data: Folder of images.
        labels: Folder of their ground truth, of the same names: index images, or masks in the colours of the classes.
        ignore_index: Truth that does not count, one value or several; the engine's own if None.
        label_map: What values of the ground truth mean, if they are not the net's labels: `255=1,7=ignore`, with
            numbers or names of classes; `cityscapes-trainid` or `ade20k`; a file with a pair a line; or a mapping.
        label_suffix: What the names of labels have after those of the images, such as `_gtFine_labelTrainIds`.
        recursive: Whether sub-folders of the folders are searched too.
        reference: What to compare with, as `engine`.
        max_images: At most so many, evenly spread over the folder.
        batch: At most so many neighbours of equal size run together.
        model: What makes the net of a checkpoint among them if it is a custom net.
        size_divisor: How that net is padded.
        pad_mode: Likewise.
        logits: Which of its outputs are the logits.
        resize_logits: How they are resized.
        weights_key: The entry of a checkpoint among them that holds the weights.
        weights_prefix: Only its tensors under this prefix are taken, without it.
        weights_ignore: Globs; its entries that match one are left out.
        threads: CPU threads; the library's default if None.
        provider: What ONNX Runtime runs on: `cpu` (the default) or `cuda`.
        device: Index of the GPU.
        device_name: What OpenVINO runs on: `CPU`, `GPU` or `NPU`; the CPU if None.
        fast_math: Lets ONNX Runtime multiply matrices of FP32 in BF16, on a 64-bit Arm CPU that has it; never in
            the reference.
        allow_host_code: Lets a TensorRT plan run code on the host.
        contexts: How many calls on a TensorRT plan run at the same time; 8 if None.
        graphs: How many CUDA graphs each of them keeps; 4 if None, and none with 0.
        specialization: When TensorRT-RTX compiles kernels for a shape: `lazy`, in the background; `eager`, before its
            first run; or `none`. If None, `eager` for plans of fixed shapes, else `lazy`.
        progress: Told of each image.

    Raises:
        ArtifactError: An engine does not fit this machine or its sidecar.
        DependencyError: A library, a driver or a GPU is missing.
        InputError: A file cannot be read or does not fit, or no pixel of the ground truth is labelled.
        UsageError: Options do not go together, or the engine is its own reference.

    Example:
        >>> import fcn_deploy as fd
        >>> score = fd.evaluate("fcn8s.int8.onnx", "street/images", "street/labels", reference="fcn8s.onnx")
        >>> score.miou, score.reference.drop.points
    """
    if batch < 1:
        raise UsageError("bad `batch`", got=batch, expected="1 or more")
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
    )
    runnables = (engine,) if reference is None else (engine, reference)
    check_runnables(runnables, runtime, code)
    if reference is not None:
        check_not_itself(engine, reference)
    images = image_folder(data, max_images=max_images, recursive=recursive)
    options = TruthOptions.of(
        labels, ignore_index=ignore_index, label_map=label_map, label_suffix=label_suffix, recursive=recursive
    )
    assert options is not None
    check_pairs(images, options)
    with opened(runnables, runtime, code, progress, reference) as segmenters:
        candidate, spec = segmenters[0], segmenters[0].spec
        check_image_sizes(images, spec.min_size)
        reader = options.reader(spec)
        ignored = reader.ignore_index
        shown = samples(images, options, "evaluating", reader, progress=progress or Silent())
        checked = check_truth(images, options, spec)
        first = next(iter(reader.ignored), None)
        if reference is None:
            matrices, truth = confusion_matrices(candidate, shown, ignored, batch=batch)
            truth = with_ignored(truth, checked)
            accuracy = Accuracy(spec.classes, matrices.sum(0))
            warnings = _warnings(truth, name_of(engine), accuracy)
            return Evaluation(name_of(engine), len(images), first, accuracy, truth=truth, warnings=warnings)
        found = compare(segmenters[1], [candidate], shown, ignored, batch=batch)
    measured = found.engines[0]
    assert measured.confusion is not None
    assert measured.drop is not None
    assert found.reference is not None
    assert found.truth is not None
    truth = with_ignored(found.truth, checked)
    against = Against(
        name=name_of(reference),
        accuracy=Accuracy(spec.classes, found.reference.sum(0)),
        parity=measured.parity,
        drop=measured.drop,
    )
    accuracy = Accuracy(spec.classes, measured.confusion.sum(0))
    doubts = parity_warnings(name_of(engine), against.parity)
    warnings = _warnings(truth, against.name, against.accuracy, doubts)
    return Evaluation(name_of(engine), len(images), first, accuracy, against, truth, warnings)


def _warnings(truth: GroundTruth, name: str, accuracy: Accuracy, others: Sequence[str] = ()) -> tuple[str, ...]:
    classes = len(accuracy.classes)
    warnings = (*truth_warnings(truth, classes), *chance_warnings(name, accuracy.miou, truth, classes), *others)
    for warning in warnings:
        _log.warning("%s", warning)
    return warnings
