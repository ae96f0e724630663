"""`tune` without a backend: what takes part, which engine is taken, and what the sidecar says of it."""

import functools
import json
import logging
import sys

import numpy as np
import pytest
import torch

from fcn_deploy.errors import GateError, PrecisionError, UsageError
from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.mixed_precision.kernel_tuning import Clock
from fcn_deploy.mixed_precision.layer_times import time_layers
from fcn_deploy.progress import Silent
from fcn_deploy.runtime.openvino import library
from fcn_deploy.workflows import backends, building, tuning
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.exporting import export
from tests.support.custom_nets import OneLayer
from tests.support.openvino import needs_bf16, needs_openvino

ROUNDS = 8


class Listener(Silent):
    def __init__(self):
        self.said = []

    def stage(self, text):
        self.said.append(text)


@pytest.fixture
def times(monkeypatch):
    """Milliseconds of whole engines, by name; 10 for those that are not in it. Every engine runs once."""
    times = {}

    def layers(graphs, names, **options):
        found = time_layers(graphs, names, rounds=1, **options)
        return {way: dict.fromkeys(layers, 1.0) for way, layers in found.items()}

    def engines(contestants, config, show):
        for contestant in contestants.values():
            contestant()
        return [Timing(name, np.broadcast_to(np.array(times.get(name, 10.0)), ROUNDS)) for name in contestants]

    tuned = functools.partial(building.build_fastest, clock=Clock(layers, engines))
    monkeypatch.setattr(building, "build_fastest", tuned)
    return times


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def tuned(exported, ranges_file, listener):
    def tuned(precision, **options):
        given = {"ranges": ranges_file("fcn8s")} if precision == "int8" else {}
        given |= {"precision": precision, "tune": "33x47", "progress": listener, **options}
        return build_engine(exported("fcn8s"), **given)

    return tuned


@pytest.fixture
def no_openvino(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    find = library.importlib.util.find_spec
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_library_whose_engine_is_faster_is_taken_and_recorded(tuned, times, listener, tmp_path, precision):
    name = f"openvino {precision.upper()}"
    times[name] = 5.0
    engine = tuned(precision, threads=1, output=tmp_path / "net.onnx")
    assert (engine.sidecar.backend, engine.sidecar.precision.requested) == ("openvino", precision)
    found = json.loads((tmp_path / "net.onnx.json").read_text())["tuning"]
    assert (found["chosen"], found["shape"], found["threads"]) == (name, "1x33x47", 1)
    assert {each.split()[0] for each in found["milliseconds"]} == {"onnxruntime", "openvino"}
    assert found["ratios"][name]["median"] == 1
    assert {ratio["median"] for other, ratio in found["ratios"].items() if other != name} == {2.0}
    assert "backend: by time, among onnxruntime and openvino" in listener.said
    assert any(said.startswith(f"tuned at 1x33x47: {name} is the fastest of") for said in listener.said)


@needs_openvino
def test_another_library_has_to_be_clearly_faster(tuned, times, listener):
    times["openvino INT8"] = [9, 9, 9, 9, 9, 11, 11, 11]
    engine = tuned("int8")
    assert engine.sidecar.backend == "onnxruntime"
    assert engine.sidecar.tuning.chosen == "onnxruntime INT8"
    assert any("onnxruntime INT8 is kept, because no other is clearly faster" in said for said in listener.said)


def test_what_is_not_installed_is_left_out_and_said(tuned, times, listener, no_openvino):
    assert tuned("fp32").sidecar.backend == "onnxruntime"
    assert "openvino is left out: OpenVINO is not installed" in listener.said
    assert "backend: by time, among onnxruntime" in listener.said


@needs_openvino
@needs_bf16
@pytest.mark.parametrize(
    ("precision", "options", "name"),
    [("bf16", {}, "openvino BF16"), ("int8", {"base": "bf16"}, "openvino INT8 and BF16")],
)
def test_bf16_is_computed_only_where_it_is_asked_for(tuned, times, listener, precision, options, name):
    engine = tuned(precision, **options)
    assert engine.sidecar.tuning.chosen == name
    assert engine.sidecar.precision.base == "bf16"
    assert listener.said[0].startswith("onnxruntime is left out: ")


@needs_openvino
def test_an_engine_that_could_not_run_on_this_cpu_is_left_out(tuned, times, listener, monkeypatch):
    monkeypatch.setattr(tuning, "exact_8_bits", lambda: False)
    times["openvino INT8"] = 1.0
    assert tuned("int8").sidecar.backend == "onnxruntime"
    assert any("openvino is left out: its engine would be for CPUs with VNNI" in said for said in listener.said)
    assert tuned("int8", target_cpu="generic").sidecar.backend == "openvino"


def test_a_candidate_that_its_library_cannot_build_is_left_out(tuned, times, listener, monkeypatch):
    monkeypatch.setattr(tuning, "LIBRARIES", ("onnxruntime", "simulation"))
    build = backends.Job.build

    def refused(job, *arguments):
        if job.backend == "simulation":
            raise PrecisionError("it does not run every INT8 layer in INT8", got="conv in FP32")
        return build(job, *arguments)

    monkeypatch.setattr(backends.Job, "build", refused)
    assert tuned("fp32").sidecar.backend == "onnxruntime"
    assert "simulation FP32 is left out: it does not run every INT8 layer in INT8, got conv in FP32" in listener.said


def test_if_none_takes_part_the_error_is_that_of_the_default_library(tuned, times, listener):
    with pytest.raises(UsageError, match="ONNX Runtime's CPU kernels do not compute in FP16"):
        tuned("fp16")
    assert listener.said == []


def test_int8_that_is_not_faster_than_fp32_is_a_warning(tuned, times, no_openvino, caplog):
    times["onnxruntime FP32"] = 8.0
    with caplog.at_level(logging.WARNING):
        engine = tuned("int8")
    assert engine.sidecar.precision.requested == "int8"
    assert engine.sidecar.tuning.ratios["onnxruntime FP32"].median == 0.8
    (said,) = (record.getMessage() for record in caplog.records if "FP32 here" in record.getMessage())
    assert said == (
        "INT8 is slower than FP32 here: onnxruntime INT8 against onnxruntime FP32, 1.25x the time, "
        'quartiles 1.25-1.25; `precision="fp32"` costs no accuracy'
    )
    times["onnxruntime FP32"] = 20.0
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        tuned("int8")
    assert "than FP32" not in caplog.text


@needs_openvino
def test_with_a_budget_layers_are_decided_for_each_library(tuned, times, listener, photo_folder):
    times["openvino INT8"] = 5.0
    engine = tuned("int8", accuracy_budget="agreement>=90%", data=photo_folder)
    assert engine.sidecar.backend == "openvino"
    assert engine.sidecar.precision.budget.criterion == "agreement>=90%"
    deciding = [said for said in listener.said if said.endswith("deciding on images")]
    assert deciding[-1] == "openvino INT8: deciding on images"
    assert deciding[0].startswith("onnxruntime INT8")


def test_a_budget_that_none_keeps_is_a_missed_gate(tuned, times, photo_folder, no_openvino, monkeypatch):
    def missed(*arguments, **options):
        raise GateError("the accuracy budget cannot be met")

    monkeypatch.setattr(tuning, "decide_precisions", missed)
    with pytest.raises(GateError, match="cannot be met"):
        tuned("int8", accuracy_budget="agreement>=90%", data=photo_folder)


def test_a_named_library_is_not_exchanged(tuned, times, listener, monkeypatch):
    monkeypatch.setattr(building, "build_fastest", lambda *a, **k: pytest.fail("a library was chosen"))
    engine = tuned("fp32", backend="onnxruntime")
    assert set(engine.sidecar.tuning.milliseconds) <= {"direct", "by channels", "by layer"}
    with pytest.raises(UsageError, match=r"only ONNX Runtime's kernels can be chosen.*leave out `backend`"):
        tuned("fp32", backend="openvino")


def test_a_busy_machine_is_warned_about(tuned, times, no_openvino, monkeypatch, caplog):
    monkeypatch.setattr(building, "timing_warnings", lambda conditions: ("the machine is busy",))
    with caplog.at_level(logging.WARNING):
        tuned("fp32")
    assert "the machine is busy" in caplog.text


def test_without_tune_auto_stays_with_onnx_runtime(tuned, listener):
    assert tuned("fp32", tune=None).sidecar.backend == "onnxruntime"
    assert listener.said[0].startswith("backend: onnxruntime, because")


def test_the_command_prints_what_it_measured(call, exported, tmp_path, times, no_openvino):
    output = tmp_path / "net.onnx"
    times["onnxruntime direct"] = 5.0
    command = ("build-engine", exported("fcn8s"), "--tune", "33x47", "--threads", 1, "-o", output)
    said = call(*command)
    assert "image to labels at 1x33x47, 1 thread\n" in said.out
    assert "/ onnxruntime" in said.out
    assert "1.00x, as fast" in said.out
    assert "openvino is left out" in said.err
    document = json.loads(call(*command, "--json").out)
    assert document["tuning"]["chosen"] in document["tuning"]["milliseconds"]


def timed(name, *latencies):
    return Timing(name, np.array(latencies, float))


@pytest.mark.parametrize(
    ("timings", "chosen"),
    [
        ([timed("a1", *[5] * 8), timed("a2", *[4] * 8), timed("b", *[4.5] * 8)], "a2"),
        ([timed("a1", *[5] * 8), timed("a2", *[4] * 8), timed("b", *[3.9] * 8)], "b"),
        ([timed("a1", *[5] * 8), timed("b", *[4] * 5, *[6] * 3)], "a1"),
        ([timed("b", *[9] * 8)], "b"),
        ([timed("a1", 5, 5), timed("b", 1, 1)], "a1"),  # too few rounds to tell
    ],
)
def test_within_a_library_the_median_counts_and_another_has_to_be_faster_in_most_rounds(timings, chosen):
    assert tuning.choose(timings, {timing.name: timing.name[0] for timing in timings}) == chosen


def test_bf16_without_its_library_names_it(tuned, no_openvino):
    with pytest.raises(UsageError, match=r'onnxruntime builds no engines in BF16.*`backend="openvino"` for BF16'):
        tuned("bf16")


def test_a_model_of_a_fixed_batch_is_timed_on_it(times, tmp_path):
    torch.save(OneLayer().state_dict(), tmp_path / "net.pth")
    model = export(tmp_path / "net.pth", model="tests.support.custom_nets:OneLayer", shape="2x33x47")
    assert build_engine(model, tune="33x47").sidecar.tuning.shape == "2x33x47"
