"""Runs variants of a net over images, without computing again what they have in common with the net."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.mixed_precision.fingerprints import Fingerprints, cut, fingerprints, frontier, input_name
from fcn_deploy.runtime.backend import Array
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

Feeds = Sequence[Mapping[str, Array]]


@dataclass(frozen=True)
class VariantResult:
    """The logits of a net, or of a variant of it, for one image.

    Attributes:
        variant: Name of the variant; None for the net itself.
        image: Index of the image.
        logits: float32 [1, C, H, W].
    """

    variant: str | None
    image: int
    logits: Array


def run_variants(
    net: bytes, variants: Mapping[str, Callable[[], bytes]], feeds: Feeds, *, threads: int | None = None
) -> Iterator[VariantResult]:
    """Runs a net over images, then each variant from the point where it differs from the net.

    One variant is in memory at a time. The tensors that variants start from, and the variants themselves, are kept in a
    temporary folder.

    Args:
        net: Content of an ONNX file.
        variants: By name, a function that makes the content of the variant's ONNX file, with the net's inputs and
            outputs.
        feeds: The net's inputs, for each image.
        threads: CPU threads; None for ONNX Runtime's default.

    Yields:
        The net's results for each image, then those of each variant.

    Raises:
        ArtifactError: ONNX Runtime cannot load or run one.
    """
    with tempfile.TemporaryDirectory(prefix="fcn-deploy-") as folder:
        model = ShapeInferencePass()(parse(net)).model  # inputs of the variants need types
        prints = fingerprints(model.graph)
        tails = {
            name: _Tail.write(Path(folder, f"{index}.onnx"), make(), prints)
            for index, (name, make) in enumerate(variants.items())
        }
        store = _Store(Path(folder), list(dict.fromkeys(value for tail in tails.values() for value in tail.starts)))
        with OnnxRuntimeBackend(_with_outputs(model, store.values), threads=threads) as backend:
            for image, feed in enumerate(feeds):
                results = backend.infer(feed)
                store.save(image, {**feed, **results})
                yield VariantResult(None, image, results["logits"])
        for name, tail in tails.items():
            with OnnxRuntimeBackend(tail.file, threads=threads) as backend:
                for image in range(len(feeds)):
                    feed = {input_name(value): store.load(image, value) for value in tail.starts}
                    yield VariantResult(name, image, backend.infer(feed)["logits"])


@dataclass(frozen=True, eq=False)
class _Tail:
    """The part of a variant that is left to run, and the net's tensors that it starts from."""

    file: Path
    starts: tuple[ir.Value, ...]

    @classmethod
    def write(cls, file: Path, variant: bytes, prints: Fingerprints) -> _Tail:
        model = parse(variant)
        cuts = frontier(model, prints)
        file.write_bytes(cut(model, cuts))
        return cls(file, tuple(cuts.values()))


@dataclass(frozen=True, eq=False)
class _Store:
    """Tensors of the net, in files: at full resolution, for several images, they do not fit into memory."""

    folder: Path
    values: list[ir.Value]

    def save(self, image: int, tensors: Mapping[str, Array]) -> None:
        for index, value in enumerate(self.values):
            np.save(self._file(image, index), tensors[str(value.name)])

    def load(self, image: int, value: ir.Value) -> Array:
        array: Array = np.load(self._file(image, self.values.index(value)))
        return array

    def _file(self, image: int, index: int) -> Path:
        return self.folder / f"{image}-{index}.npy"


def _with_outputs(model: ir.Model, values: Sequence[ir.Value]) -> bytes:
    outputs = model.graph.outputs
    outputs.extend(value for value in values if not value.is_graph_input() and not value.is_graph_output())
    return serialize(model)
