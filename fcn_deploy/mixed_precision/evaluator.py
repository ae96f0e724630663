"""Holds mixes against the exported model, and the ground truth where there is any, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.accuracy import confusion_matrix, miou_drop
from fcn_deploy.evaluation.comparison import Assessment, Sample
from fcn_deploy.evaluation.parity import Output, ParityTally, run
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


class Judge:
    """Assesses graphs on images on which the reference has run once.

    Args:
        reference: Content of the exported ONNX file.
        spec: Of the net.
        samples: An image, uint8 [H, W, 3], and its truth, integer [H, W], or None for all of them.
        ignore_index: Truth that does not count.
        threads: CPU threads; ONNX Runtime's default where None.

    Raises:
        InputError: There are no images, one does not fit the net, or some have truth and others not.
    """

    def __init__(
        self,
        reference: bytes,
        spec: ModelSpec,
        samples: Iterable[Sample],
        ignore_index: int | None,
        *,
        threads: int | None = None,
    ) -> None:
        self._spec, self._ignore_index, self._threads = spec, ignore_index, threads
        self._samples = list(samples)
        self.images = [image for image, _ in self._samples]
        if not self.images:
            raise InputError("no images to judge on", expected="at least one")
        self._truths = [truth for _, truth in self._samples if truth is not None]
        if self._truths and len(self._truths) < len(self.images):
            raise InputError("images without ground truth", expected="labels for each, or for none")
        # Labels alone: the logits of all images would be too much to hold.
        self._references = [Output(output.labels) for output in self._run(reference, lambda: None)]
        self._matrices = self._confusions(self._references)

    def assess(self, graph: bytes, advance: Callable[[], None] = lambda: None) -> Assessment:
        """Compares a graph with the reference.

        Args:
            graph: Content of an ONNX file with the input and output of the exported model.
            advance: Called behind each image.
        """
        outputs = self._run(graph, advance)
        tally = ParityTally()
        for expected, found in zip(self._references, outputs, strict=True):
            tally.add(expected, found)
        if self._matrices is None:
            return Assessment(tally.result())
        matrices = self._confusions(outputs)
        assert matrices is not None
        return Assessment(tally.result(), matrices, miou_drop(self._matrices, matrices))

    def _run(self, graph: bytes, advance: Callable[[], None]) -> list[Output]:
        outputs = []
        with Segmenter(OnnxRuntimeBackend(graph, threads=self._threads), spec=self._spec) as segmenter:
            for image in self.images:
                outputs.append(Output(run(segmenter, image).labels))
                advance()
        return outputs

    def _confusions(self, outputs: list[Output]) -> np.ndarray | None:
        if not self._truths:
            return None
        return np.stack(
            [
                confusion_matrix(truth, output.labels, self._spec.num_classes, self._ignore_index)
                for truth, output in zip(self._truths, outputs, strict=True)
            ]
        )
