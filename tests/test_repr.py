"""What a notebook or a log shows of the public objects: what each is, on one line."""

from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest

import fcn_deploy as fd
from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.measures import Drop, Parity, Ratio
from fcn_deploy.artifacts.sensitivity import Fidelity, LayerSensitivity
from fcn_deploy.diagnostics.libraries import Library
from fcn_deploy.diagnostics.machine import Cpu, Machine, Nvidia
from fcn_deploy.evaluation.gates import GateResult
from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.workflows.evaluating import Accuracy, Against
from fcn_deploy.workflows.predictions import VideoPrediction

CLASSES = tuple(f"class {index}" for index in range(21))
PARITY = Parity(7, 0.99)
ACCURACY = Accuracy(CLASSES, np.eye(21, dtype=np.int64))
TIMING = Timing("a\n.onnx", np.ones(300))
ENGINE = fd.EngineSummary(
    "a\n.onnx", 1, "int8", Gate(0.97, True), (), PARITY, 61.5, None, 12.34, {}, Ratio(1, 1, 1), Ratio(1, 1, 1)
)
LIBRARY = Library("onnxruntime", "1", True, True, "", "onnx", ("int8",))
FIDELITY = Fidelity(0.99, 30)

SHOWN = {
    "Accuracy(mIoU 100.00, pixel accuracy 100.00, 21 classes)": ACCURACY,
    r"Timing(a\n.onnx, 300 rounds, median 1.0 ms)": TIMING,
    r"Benchmark(1x8x8, a\n.onnx 1.0 ms)": fd.Benchmark(fd.ImageShape(1, 8, 8), 2, (TIMING,), (), (90,)),
    "Checkup(ARM Cortex-A72, 0 GPUs, onnxruntime)": fd.Checkup(
        Machine("3.11", "Linux", None, Cpu("ARM Cortex-A72", 4, None), Nvidia(None, (), None)), (LIBRARY,)
    ),
    r"EngineSummary(a\n.onnx, int8, passed, agreement 99.000%, mIoU 61.50, 12.3 ms)": ENGINE,
    "Summary(fcn8s, int8 passed, 5 images)": fd.Summary(
        "fcn8s.onnx", "fcn8s", 0.0, {"observed": 20, "judged": 5}, (8, 8), 1.0, None, (ENGINE,)
    ),
    r"Evaluation(a\n.onnx, 7 images, mIoU 100.00, mIoU drop 0.25)": fd.Evaluation(
        "a\n.onnx", 7, 255, ACCURACY, Against("b", ACCURACY, PARITY, Drop(0.25, 0, 1))
    ),
    r"ImageFolder(\x1b[1m, 100 images, resized to 8x9)": fd.ImageFolder(
        tuple(Path(f"\x1b[1m/{index}.png") for index in range(100)), (8, 9)
    ),
    r"Predictions(a\n.onnx, 2 images, 4 files)": fd.Predictions("a\n.onnx", 2, (Path("a"),) * 4),
    r"Predictions(a\n.onnx, 1 images, 1 videos, 8 frames, 0 files)": fd.Predictions(
        "a\n.onnx", 1, (), videos=(VideoPrediction("b", 7, 0, ()),)
    ),
    "Sensitivity(INT8 by mse for onnxruntime, 9 layers, 2 images, agreement 99.000%)": fd.Sensitivity(
        "onnxruntime", "mse", 2, (8, 8), FIDELITY, (LayerSensitivity("a", True, 1, FIDELITY, FIDELITY),) * 9
    ),
    r"Verification(a\n.onnx against b.onnx, int8, failed, agreement 99.000%, 7 images)": fd.Verification(
        "a\n.onnx", "b.onnx", "int8", PARITY, GateResult(Gate(0.97, False), ("no",))
    ),
}


@pytest.mark.parametrize("shown", SHOWN)
def test_a_result_says_what_it_is_on_one_line(shown):
    assert repr(SHOWN[shown]) == shown


def test_every_public_object_that_holds_much_has_a_line_of_its_own():
    """Left out are those whose fields are a few numbers and words."""
    small = {"ImageShape", "Normalization", "Criterion", "GateOption"}
    for name in fd.__all__:
        kind = getattr(fd, name)
        if isinstance(kind, type) and is_dataclass(kind) and name not in small:
            assert not _is_generated(kind.__repr__), name
    assert _is_generated(fd.ImageShape.__repr__)


def _is_generated(function):
    return hasattr(function, "__wrapped__")  # by a guard against recursion, which dataclass puts around its own


def test_an_engine_and_its_parts_say_what_they_are(exported, tmp_path):
    path = tmp_path / "fcn8s.int8.onnx"
    engine = fd.build_engine(exported("fcn8s"), output=path)
    version = engine.sidecar.library
    assert repr(engine.sidecar) == f"Sidecar(fcn8s.int8.onnx, fp32 for onnxruntime {version}, io image, 5 classes)"
    assert repr(engine.sidecar.spec) == "ModelSpec(fcn8s, 5 classes, RGB, stride 8)"
    segmenter = fd.Segmenter(path, threads=2)
    shown = "Segmenter(fcn8s.int8.onnx, onnxruntime, io image, 5 classes, fp32, threads 2, "
    assert repr(segmenter) == f"{shown}open)"
    segmenter.close()
    assert repr(segmenter) == f"{shown}closed)"
    with fd.Segmenter(exported("fcn8s")) as model:
        assert repr(model) == "Segmenter(fcn8s.onnx, onnxruntime, io tensor, 5 classes, open)"
