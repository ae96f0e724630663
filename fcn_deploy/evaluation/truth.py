"""What the ground truth of a set of images says, and what it cannot say: ignored pixels, classes that never occur.

A figure that could not have been worse looks like a good one. On ground truth of 0 and 255, with 255 ignored, a net
that never finds the object has an mIoU of 100.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.measures import GroundTruth, Parity
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.accuracy import Ignored, chance_miou, ignored_values, is_ignored, is_near_chance

_MAPPED = ": is it one of these classes? A label map would say so"
_MOSTLY_IGNORED = 0.5
_OFTEN_PREDICTED = 0.01
_SHOWN = 8


class TruthTally:
    """Counts what the ground truth holds, and what nets give on all pixels, also on ignored ones.

    Args:
        classes: Names of the net's classes.
        ignore_index: Truth that does not count.
    """

    def __init__(self, classes: Sequence[str], ignore_index: Ignored) -> None:
        self._classes = tuple(classes)
        self._ignore_index = ignore_index
        self._pixels = 0
        self._ignored: Counter[int] = Counter()
        self._occurring = np.zeros(len(self._classes), np.int64)
        self._predicted: dict[int, NDArray[np.int64]] = {}

    def add(
        self,
        truth: NDArray[np.integer[Any]],
        labels: Iterable[NDArray[np.integer[Any]]] = (),
        ignored: Mapping[int, int] | None = None,
    ) -> None:
        """Adds one image.

        Args:
            truth: Integer [H, W], classes and ignored values only.
            labels: Integer [H, W], 0..C-1, of each net.
            ignored: Number of pixels of each ignored value, as the file has it; those in `truth` if None.
        """
        self._pixels += truth.size
        if ignored is None:
            ignored = {value: int((truth == value).sum()) for value in ignored_values(self._ignore_index)}
        self._ignored.update(ignored)
        counted = truth[~is_ignored(truth, self._ignore_index)]
        self._occurring += np.bincount(counted, minlength=len(self._classes))
        for net, each in enumerate(labels):
            self.add_labels(net, each)

    def add_labels(self, net: int, labels: NDArray[np.integer[Any]]) -> None:
        """Adds what one net gives for one image.

        Args:
            net: Its number.
            labels: Integer [H, W], 0..C-1.
        """
        counts = np.bincount(labels.ravel(), minlength=len(self._classes)).astype(np.int64)
        self._predicted[net] = self._predicted[net] + counts if net in self._predicted else counts

    def result(self, what: str = "the ground truth") -> GroundTruth:
        """Returns what was counted.

        Args:
            what: The folder or the files, for the error.

        Raises:
            InputError: No pixel counts: every one is ignored.
        """
        ignored = sum(self._ignored.values())
        values = tuple(sorted(value for value, count in self._ignored.items() if count))
        if ignored == self._pixels:
            raise nothing_labelled(what, values, len(self._classes))
        absent = [index for index, count in enumerate(self._occurring) if not count]
        predicted = {
            index: max((int(counts[index]) for counts in self._predicted.values()), default=0) for index in absent
        }
        return GroundTruth(
            pixels=self._pixels,
            ignored=ignored / self._pixels,
            ignored_values=values,
            absent=tuple(self._classes[index] for index in absent),
            predicted_absent={self._classes[index]: n / self._pixels for index, n in predicted.items() if n},
            chance=chance_miou(self._occurring),
        )


def nothing_labelled(what: str, values: Sequence[int], num_classes: int) -> InputError:
    """Returns the error for ground truth of which no pixel counts.

    Args:
        what: The folder or the files.
        values: The ignored values that it holds.
        num_classes: C.
    """
    found = _either(values)
    return InputError(
        f"{what} labels no pixel, so that nothing can be measured",
        got=f"{found} everywhere, which is ignored" if found else "no pixels",
        expected=f"classes 0..{num_classes - 1}",
        fix=(f'if {values[0]} is a class, say which: `label_map="{values[0]}=1"`; else ' if values else "")
        + "name the folder of the labels with `labels`, or what is ignored with `ignore_index`",
    )


def truth_warnings(truth: GroundTruth, num_classes: int) -> list[str]:
    """Returns what a user must know before believing a figure that was measured on this ground truth.

    Args:
        truth: What was counted.
        num_classes: C.
    """
    warnings = []
    values, be = _either(truth.ignored_values), "is" if len(truth.ignored_values) == 1 else "are"
    if truth.ignored > _MOSTLY_IGNORED:
        warnings.append(
            f"{truth.ignored:.1%} of the pixels of the ground truth are ignored ({values}): "
            "figures are of the other pixels only"
        )
    often = [(name, share) for name, share in truth.predicted_absent.items() if share > _OFTEN_PREDICTED]
    if often:
        shown = ", ".join(f"{name} ({share:.1%})" for name, share in often[:_SHOWN])
        more = f" and {len(often) - _SHOWN} more" if len(often) > _SHOWN else ""
        warnings.append(
            f"the net predicts classes that never occur in the ground truth: {shown}{more} of the pixels"
            + (f"; {values} {be} ignored on {truth.ignored:.1%}{_MAPPED}" if values else "")
        )
    if num_classes > 1 and len(truth.absent) == num_classes - 1:
        shown = ", ".join(truth.absent[:_SHOWN])
        more = f" and {num_classes - 1 - _SHOWN} more" if num_classes - 1 > _SHOWN else ""
        warnings.append(
            f"only one class occurs in the ground truth, so that figures say nothing about: {shown}{more}"
            + (f"; {values} {be} ignored on {truth.ignored:.1%}{_MAPPED}" if values else "")
        )
    return warnings


def _either(values: Sequence[int]) -> str:
    """Returns at most eight values, with `or` between them, and the number of the others."""
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return " or ".join(map(str, values[:_SHOWN])) + more


def chance_warnings(name: str, miou: float, truth: GroundTruth, num_classes: int) -> list[str]:
    """Returns a warning if a net is hardly better than guessing, which no engine made from it can be either.

    If only one class occurs, guessing is always right, and there is nothing to compare with.

    Args:
        name: Of the net.
        miou: Its mIoU, in points.
        truth: What it was measured on.
        num_classes: C.
    """
    one_class = num_classes - len(truth.absent) < 2
    if one_class or not is_near_chance(miou, truth.chance):
        return []
    return [
        f"{name} itself has an mIoU of {miou:.2f}, and guessing by frequency gives {truth.chance:.2f}: "
        "the normalisation or the class order is wrong"
    ]


def parity_warnings(name: str, parity: Parity) -> list[str]:
    """Returns what is to be known about an agreement that says nothing.

    Args:
        name: Of the engine.
        parity: With its reference.
    """
    reason = says_nothing(parity)
    return [] if reason is None else [f"{name}: {reason}"]


def says_nothing(parity: Parity) -> str | None:
    """Returns why the labels of two nets say nothing about how well they agree; None if they say something."""
    broken = (("the reference", parity.reference_not_finite), ("the engine", parity.engine_not_finite))
    found = [
        f"logits of {side} are NaN or infinite on {count} of {parity.images} images" for side, count in broken if count
    ]
    if found:
        return ", ".join(found)
    if parity.only_label is not None:
        return f"agreement says nothing: both nets give label {parity.only_label} at every pixel"
    return None
