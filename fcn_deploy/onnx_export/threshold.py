"""The threshold of a binary net: what the user says, or what its last operator says."""

from __future__ import annotations

import logging
import math

import onnx_ir as ir

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import UsageError
from fcn_deploy.graph.ops import SELECTING
from fcn_deploy.onnx_export.comparison import noise
from fcn_deploy.runtime.backend import Backend

_log = logging.getLogger(__name__)

_GIVE = "give"
_PROBABILITY = 0.5
_TO_PROBABILITY = ("Sigmoid", "HardSigmoid")
# After these, values that lay in 0..1 still do, and 0.5 still parts them.
_KEEPING = SELECTING | {"Resize", "DepthToSpace", "SpaceToDepth", "Cast", "AveragePool", "Pad"}


def check_threshold(threshold: float | None, spec: ModelSpec) -> None:
    """Checks that a threshold goes with a net.

    Args:
        threshold: What the user says, or None.
        spec: What the net is.

    Raises:
        UsageError: It is not finite, or the net has a channel for each class.
    """
    if threshold is not None and not math.isfinite(threshold):
        raise UsageError("`threshold` is not finite", got=threshold, expected="a number, such as 0 or 0.5")
    if threshold is not None and spec.threshold is None:
        raise UsageError(
            "`threshold` is for binary nets, which have one output channel",
            got=f"a net with {spec.num_classes}, one for each class",
            fix="leave it out: the label is the class with the largest logit",
        )


def chosen_threshold(spec: ModelSpec, stated: float | None, graph: ir.Graph) -> float | None:
    """Returns the threshold of a net; None for one with a channel for each class.

    Args:
        spec: What the net is.
        stated: What the user says, or None.
        graph: As exported; its first output is `logits`.

    Returns:
        What the user says; else 0.5 if the net ends in a sigmoid, and the threshold of `spec`, 0 for a logit, if not.

    Raises:
        UsageError: The net ends in a sigmoid, and what the user says is no probability.
    """
    if spec.threshold is None or stated is not None:
        if stated is not None and not 0 <= stated < 1 and ends_in_sigmoid(graph):
            raise UsageError(
                "`threshold` gives every pixel one label",
                got=f"{stated:g} for a net that ends in a sigmoid",
                expected="a probability between 0 and 1",
            )
        return stated
    return _PROBABILITY if spec.threshold == 0 and ends_in_sigmoid(graph) else spec.threshold


def ends_in_sigmoid(graph: ir.Graph) -> bool:
    """Returns whether the first output of a graph comes from a sigmoid, by operators that only move or average values.

    Args:
        graph: Any.
    """
    node = graph.outputs[0].producer()
    while node is not None and node.op_type in _KEEPING and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type in _TO_PROBABILITY


def warn_of_probabilities(spec: ModelSpec, net: Backend, shape: ImageShape, *, advice: str = _GIVE) -> None:
    """Warns if no value of a binary net is below its threshold of 0, as of probabilities or grey values.

    Args:
        spec: What the net is.
        net: Takes `image` and gives `logits`.
        shape: Of the images to try, which are those of `comparison.noise`.
        advice: What comes before the threshold that would help.
    """
    if spec.threshold != 0:
        return
    values = net.infer({"image": noise(shape)})["logits"]
    if values.min() < 0:
        return
    if values.max() <= 1:
        _log.warning(
            "every value of the net lies in 0..1 (%.3g to %.3g), so that with the threshold 0 every label is 1. If "
            "they are probabilities, %s `threshold=0.5`",
            values.min(),
            values.max(),
            advice,
        )
    else:
        _log.warning(
            "no value of the net is negative (%.3g to %.3g), so that with the threshold 0 every label is 1. If they "
            "are not logits, %s the border between background and foreground, such as `threshold=%.3g`",
            values.min(),
            values.max(),
            advice,
            255 / 2 if 128 < values.max() <= 255 else values.max() / 2,
        )
