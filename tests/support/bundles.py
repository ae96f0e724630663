"""Bundles of a net that nobody exported: its graphs say their precision, which is all that the fake library reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.measures import Parity
from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.sidecar import Source
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.summary import EngineSummary
from fcn_deploy.bundle.expected import Expected, save_expected
from fcn_deploy.bundle.folder import CheckedBundle, write_bundle
from fcn_deploy.bundle.manifest import EXPECTED, RANGES, Bundle, BundledGraph, graph_file
from fcn_deploy.runtime.image import normalize
from tests.support.fake_device import red_over_blue

PROFILE = {"min": [1, 16, 24], "opt": [1, 24, 36], "max": [1, 64, 96]}
CONTENTS = {"fp16": b"a graph, fp16-fp16", "int8": b"a graph, int8-fp16"}
TENSOR_CONTENTS = {precision: graph + b", tensor" for precision, graph in CONTENTS.items()}


def spec(**changes: Any) -> ModelSpec:
    facts = {"variant": "RedOrBlue", "stride": None, "width": None, "geometry": None, "model": "colour_nets:RedOrBlue"}
    classes = {"num_classes": 2, "classes": ("blue", "red"), "palette": default_palette(2)}
    return ModelSpec(**{**facts, **classes, "normalization": Normalization(), **changes})


def simulated(precision: str) -> EngineSummary:
    gate = Gate(0.9985, True, criteria=("agreement>=97%",))
    return EngineSummary(
        file=f"RedOrBlue.{precision}.onnx",
        bytes=1000,
        precision=precision,
        gate=gate,
        failures=(),
        parity=Parity(5, 0.9985),
        miou=None,
        miou_drop=None,
        median_ms=None,
        percentiles_ms={},
        vs_pytorch=None,
        vs_fp32=None,
        simulates="tensorrt",
    )


def graph(precision: str, *criteria: str) -> BundledGraph:
    return BundledGraph(Precision(precision, "fp16", layers={"head": precision}), criteria, simulated(precision))


def examples(count: int = 3, truth: bool = False) -> list[Expected]:
    random = np.random.default_rng(5)
    images = [random.integers(0, 256, (24 + index, 36, 3), np.uint8) for index in range(count)]
    return [Expected(image, red_over_blue(image), red_over_blue(image) if truth else None) for image in images]


def with_logits(made: Bundle) -> list[Expected]:
    """Of the net that the fake library's plans of tensors are: 4 times what it is given."""
    found = examples(made.images)
    return [Expected(each.image, 4 * normalize(each.image[None], made.spec.normalization)[0]) for each in found]


def manifest(graphs: dict[str, BundledGraph] | None = None, **changes: Any) -> Bundle:
    facts: dict[str, Any] = {
        "backend": "tensorrt",
        "model": "RedOrBlue.onnx",
        "export_error": 1e-6,
        "io": "image",
        "spec": spec(),
        "source": Source("ab" * 32, "cd" * 32, {"count": 5}),
        "profiles": (PROFILE,),
        "graphs": graphs or {"fp16": graph("fp16"), "int8": graph("int8")},
        "images": 3,
        "ignore_index": None,
        "calibration": {"observed": 5, "judged": 2},
    }
    return Bundle(**{**facts, **changes})


def make_bundle(folder: Path, *, truth: bool = False, **changes: Any) -> CheckedBundle:
    """Writes a bundle, and returns it."""
    made = manifest(**changes)
    graphs = CONTENTS if made.io == "image" else TENSOR_CONTENTS
    contents = {graph_file(precision): graphs[precision] for precision in made.graphs}
    written = examples(made.images, truth) if made.io == "image" else with_logits(made)
    contents |= {RANGES: b"{}", EXPECTED: save_expected(written, made.io)}
    return write_bundle(folder, made, contents)
