"""Kernels chosen by time: what is tried, what is chosen, and that the sidecar says so."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import Sidecar, load_sidecar
from fcn_deploy.cli.app import run
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.onnxruntime import build_onnxruntime, onnxruntime_graph
from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.mixed_precision.kernel_tuning import Clock, tune_kernels
from fcn_deploy.mixed_precision.layer_times import time_layers

SHAPE = ImageShape(1, 64, 96)


@pytest.fixture
def times():
    """Milliseconds of whole engines, by name."""
    return {}


@pytest.fixture
def clock(times):
    """Says how long layers and engines take: layers of conv4 and conv5 are fast by Winograd's algorithm."""

    def layers(graphs, names, **options):
        real = time_layers(graphs, names, rounds=1, **options)
        slow = {"direct": 3.0, "winograd": 9.0, "int8": 2.0}
        fast = {"direct": 3.0, "winograd": 1.0, "int8": 2.0}
        return {
            way: {name: (fast if name.startswith(("conv4", "conv5")) else slow)[way] for name in found}
            for way, found in real.items()
        }

    def engines(contestants, config):
        for contestant in contestants.values():
            contestant()
        return [Timing(name, np.array([times.get(name, 10.0)])) for name in contestants]

    return Clock(layers, engines)


@pytest.fixture
def tuned(model, ranges_file, clock):
    def tuned(precision, **options):
        ranges = Ranges.load(ranges_file("fcn8s")) if precision == "int8" else None
        return tune_kernels(model(), BuildConfig(precision, **options), ranges, SHAPE, "a processor", clock=clock)

    return tuned


DEEP = tuple(f"conv{block}_{index}" for block in (4, 5) for index in (1, 2, 3))


def test_fp32_layers_are_chosen_by_their_times(tuned, times):
    times["by layer"] = 5.0
    found = tuned("fp32")
    assert found.config == BuildConfig("fp32", winograd=DEEP)
    # The net of the tests has too few channels for the rule, which is then direct multiplication by another name.
    assert found.tuning.milliseconds == {"by channels": 10.0, "by layer": 5.0}
    assert (found.tuning.chosen, found.tuning.shape, found.tuning.cpu) == ("by layer", "1x64x96", "a processor")


def test_the_fastest_whole_engine_is_chosen(tuned, times):
    times["by channels"] = 1.0
    assert tuned("fp32").config.winograd == ()


def test_layers_in_which_int8_is_not_faster_become_float(tuned, times):
    times["INT8 where it is faster"] = 5.0
    found = tuned("int8")
    assert set(DEEP) <= set(found.config.winograd)
    assert found.config.int8_layers
    assert not set(DEEP) & set(found.config.int8_layers)


def test_layers_stay_int8_if_the_whole_engine_is_faster(tuned, times):
    times["INT8"] = 5.0
    assert set(DEEP) <= set(tuned("int8").config.int8_layers)


def test_only_the_layers_asked_for_are_int8(tuned, times):
    times["INT8 where it is faster"] = 5.0
    assert tuned("int8", int8_layers=("conv3_2", "conv5_2")).config.int8_layers == ("conv3_2",)
    only_deep = tuned("int8", int8_layers=("conv5_2",))
    assert list(only_deep.tuning.milliseconds) == ["INT8"]  # else nothing would be left in INT8


def test_the_profile_tells_the_time_of_every_layer_both_ways(model):
    names = ("conv1_2", "conv4_2")
    graphs = {
        way: onnxruntime_graph(model(), BuildConfig(winograd=layers))[0]
        for way, layers in (("direct", ()), ("winograd", names))
    }
    image = np.zeros((1, 64, 96, 3), np.uint8)
    times = time_layers(graphs, names, {"image": image}, rounds=2)
    assert {way: set(found) for way, found in times.items()} == {"direct": set(names), "winograd": set(names)}
    assert all(milliseconds > 0 for found in times.values() for milliseconds in found.values())


def test_the_command_tunes_for_real_and_says_so_in_the_sidecar(exported, ranges_file, tmp_path, capsys):
    for precision, more in (("--fp32", ()), ("--int8", ("--ranges", ranges_file("fcn8s")))):
        output = tmp_path / f"{precision[2:]}.onnx"
        command = ["build-engine", exported("fcn8s"), precision, *more, "--tune", "64x96", "--threads", 1, "-o", output]
        assert run([str(each) for each in command]) == 0
        assert "tuned at 1x64x96:" in capsys.readouterr().err
        sidecar = load_sidecar(output)
        assert sidecar.tuning.threads == 1
        assert sidecar.tuning.chosen in sidecar.tuning.milliseconds
        assert Sidecar.from_json(json.loads(json.dumps(sidecar.to_json()))) == sidecar


def test_the_sidecar_of_an_engine_that_was_not_tuned_has_no_tuning(model):
    sidecar = build_onnxruntime(model(), BuildConfig()).sidecar
    assert {"tuning", "winograd"}.isdisjoint(sidecar.to_json())
    assert "winograd" in replace(sidecar, winograd=("conv4_2",)).to_json()
