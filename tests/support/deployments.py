"""Summaries as `deploy` writes them, with the files that stand beside them; no net runs for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.measures import Drop, GroundTruth, Parity, Ratio
from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.origin import LayerCost, Origin
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.ranges import CalibrationData, Histogram, Ranges
from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.artifacts.sidecar import Source
from fcn_deploy.artifacts.spec import CheckpointInfo, ModelSpec
from fcn_deploy.artifacts.summary import EngineSummary, Summary
from fcn_deploy.evaluation.comparison import Compared
from fcn_deploy.files import write_json
from fcn_deploy.reporting.gallery import WorstImages, gallery_of
from fcn_deploy.workflows.reporting import write_pictures

CLASSES = ("sky", "road", "car")
SIZE = (30, 40)


def spec(classes: tuple[str, ...] = CLASSES) -> ModelSpec:
    return ModelSpec(
        "fcn8s",
        8,
        1.0,
        len(classes),
        classes,
        default_palette(len(classes)),
        checkpoint=CheckpointInfo("a" * 64, "seed"),
    )


def engine(precision: str, agreement: float, median: float, *, passed: bool = True) -> EngineSummary:
    fp32 = precision == "fp32"
    return EngineSummary(
        file=f"fcn8s.{precision}.onnx",
        bytes=134_000_000 if fp32 else 34_000_000,
        precision=precision,
        gate=Gate(agreement, passed, miou_drop=0.1, criteria=("agreement>=97%",)),
        failures=() if passed else (f"agreement {agreement:.3%}, required 97%",),
        parity=Parity(20, agreement, agreement_low=agreement - 0.01, agreement_high=min(1, agreement + 0.01)),
        miou=60.0 if fp32 else 59.5,
        miou_drop=Drop(0.0 if fp32 else 0.5, -0.1, 0.9),
        median_ms=median,
        percentiles_ms={"90": 1.2 * median, "99": 2 * median},
        vs_pytorch=Ratio(median / 100, median / 110, median / 90),
        vs_fp32=Ratio(median / 40, median / 44, median / 36),
        sha256=precision[0] * 64,
        class_iou=(90.0, 60.0, 30.0) if fp32 else (90.0, 59.0, None),
        layers={"conv1": "fp32", "conv2": precision},
    )


def summary(**changes: object) -> Summary:
    """What `deploy --int8` finds if all is well, but for a warning."""
    found = Summary(
        model="fcn8s.onnx",
        variant="fcn8s",
        export_error=1e-6,
        calibration={"observed": 80, "judged": 20},
        shape=SIZE,
        pytorch_ms=100.0,
        pytorch_miou=60.0,
        engines=(engine("fp32", 1.0, 40.0), engine("int8", 0.985, 20.0)),
        truth=GroundTruth(24_000, 0.02, (255,), chance=12.0, ignore_indices=(255,)),
        normalization=Normalization(assumed=True),
        warnings=("the normalisation was assumed: RGB, scale 0.00392157",),
        conditions=Conditions(2, 0.1, 2, "a CPU"),
        rounds=30,
        ship=Recommendation("fcn8s.int8.onnx", "INT8 meets its gate and is faster than FP32", Ratio(2.0, 1.8, 2.2)),
        pytorch_percentiles_ms={"90": 110.0, "99": 150.0},
        pytorch_class_iou=(90.0, 60.0, 30.0),
        origin=Origin(
            spec(),
            Source("b" * 64, None, {"count": 80}),
            {"python": "3.11.7", "numpy": "2.0.0"},
            ("fcn-deploy", "deploy", "--weights", "fcn8s.pth", "--calib-data", "my frames", "--int8", "-o", "out"),
            "2026-11-28T06:04:19Z",
        ),
        layers=(
            LayerCost("conv1", "Conv", (1, 16, 30, 40), 448, 518_400),
            LayerCost("conv2", "Conv", None, 2_320, None),
        ),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def missed() -> Summary:
    """What it finds if INT8 loses too much."""
    none = Recommendation(None, "no engine to ship: INT8 missed its gate; FP32 met its gate")
    return summary(engines=(engine("fp32", 1.0, 40.0), engine("int8", 0.9, 20.0, passed=False)), ship=none)


def images(count: int, *, labelled: bool = True) -> list[Compared]:
    """Images on which the n-th engine gives n + index wrong labels."""
    random = np.random.default_rng(3)
    found = []
    for index in range(count):
        expected = random.integers(0, len(CLASSES), SIZE).astype(np.uint8)
        labels = []
        for wrong in (0, 1 + index):
            given = expected.copy()
            given[0, :wrong] = (given[0, :wrong] + 1) % len(CLASSES)
            labels.append(given)
        truth = None
        if labelled:
            truth = expected.astype(np.int32)
            truth[-1] = 255
        found.append(Compared(random.integers(0, 256, (*SIZE, 3), dtype=np.uint8), truth, expected, tuple(labels)))
    return found


def ranges() -> Ranges:
    counts = np.arange(1, 129, dtype=np.int64)[::-1].copy()
    seen = {"image": Histogram(-2.0, 2.5, -2.5, 2.5, counts), "conv1/Relu": Histogram(0.0, 9.0, 0.0, 16.0, counts)}
    return Ranges("b" * 64, CalibrationData(80, "c" * 64), seen)


def sensitivity_json() -> dict[str, object]:
    fidelity = {"agreement": 0.99, "sqnr": 30.0}
    layer = {"macs": 1000, "alone": fidelity, "others": fidelity, "float_ms": 2.0, "int8_ms": 1.0}
    layers = [{"name": "conv1", "int8": False, **layer}, {"name": "conv2", "int8": True, **layer}]
    facts = {"target": "onnxruntime", "method": "mse", "images": 4, "shape": list(SIZE)}
    return {"format": 1, **facts, "mix": {"agreement": 0.985, "sqnr": None}, "layers": layers}


def write_deployment(folder: Path, found: Summary, *, count: int = 3, names: tuple[str, ...] = ()) -> Summary:
    """Writes a summary with pictures, ranges and a sensitivity, and returns it as it was written."""
    worst = WorstImages(names or tuple(f"{index}.png" for index in range(count)), ("fp32", "int8"), spec(), 255)
    for image in images(count):
        worst.add(image)
    gallery, pictures = gallery_of(found, worst.result())
    found = replace(found, gallery=gallery)
    folder.mkdir(parents=True, exist_ok=True)
    write_pictures(folder, pictures)
    ranges().save(folder / "fcn8s.ranges.json")
    write_json(folder / "fcn8s.sensitivity.json", sensitivity_json())
    write_json(folder / "summary.json", found.to_json())
    return found
