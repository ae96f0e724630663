"""Compares candidates with the exported model, and with the ground truth if there is any, on the same images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.accuracy import Matrix, confusion_matrix, miou_drop
from fcn_deploy.evaluation.comparison import Comparison, Sample
from fcn_deploy.evaluation.parity import Output, ParityTally, run
from fcn_deploy.graph.model import ExportedModel
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


class Evaluator:
    """Evaluates graphs on images. The reference, which is the exported model, has run on them once.

    Args:
        model: The exported model.
        samples: An image, uint8 [H, W, 3], and its truth, integer [H, W]; or None as the truth of every image.
        ignore_index: Truth that does not count.
        threads: CPU threads; None for ONNX Runtime's default.

    Attributes:
        images: The images, in the order of the samples.

    Raises:
        InputError: There are no images, one does not fit the net, or some have truth and others have none.
    """

    def __init__(
        self,
        model: ExportedModel,
        samples: Iterable[Sample],
        ignore_index: int | None,
        *,
        threads: int | None = None,
    ) -> None:
        self._spec, self._ignore_index, self._threads = model.spec, ignore_index, threads
        pairs = list(samples)
        self.images = [image for image, _ in pairs]
        if not self.images:
            raise InputError("no images to evaluate on", expected="at least one")
        self._truths = [truth for _, truth in pairs if truth is not None]
        if self._truths and len(self._truths) < len(self.images):
            raise InputError("images without ground truth", expected="labels for each, or for none")
        # Labels only: the logits of all images would need too much memory.
        self._references = self._run(model.content)
        self._matrices = self._confusions(self._references)

    def evaluate(self, graph: bytes) -> Comparison:
        """Compares a graph with the reference.

        Args:
            graph: Content of an ONNX file with the input and output of the exported model.

        Raises:
            ArtifactError: ONNX Runtime cannot load it.
        """
        outputs = self._run(graph)
        tally = ParityTally()
        for expected, found in zip(self._references, outputs, strict=True):
            tally.add(expected, found)
        reference, matrices = self._matrices, self._confusions(outputs)
        if reference is None or matrices is None:
            return Comparison(tally.result())
        return Comparison(tally.result(), matrices, miou_drop(reference, matrices))

    def _run(self, graph: bytes) -> list[Output]:
        with Segmenter(OnnxRuntimeBackend(graph, threads=self._threads), spec=self._spec) as segmenter:
            return [Output(run(segmenter, image).labels) for image in self.images]

    def _confusions(self, outputs: list[Output]) -> Matrix | None:
        if not self._truths:
            return None
        return np.stack(
            [
                confusion_matrix(truth, output.labels, self._spec.num_classes, self._ignore_index)
                for truth, output in zip(self._truths, outputs, strict=True)
            ]
        )
