"""Simulations of TensorRT graphs as engines: their gates without a GPU."""

import json

import numpy as np
import pytest

from fcn_deploy.diagnostics.inspection import inspect_file
from fcn_deploy.engines.checks import check_simulation
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.simulation import build_simulation, open_simulation
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.tensorrt.typed_graph import typed_graph
from fcn_deploy.errors import UsageError
from fcn_deploy.runtime import Segmenter, cpu


@pytest.fixture(scope="module")
def simulated(model, ranges, tmp_path_factory):
    """Builds a simulation of a precision, once."""
    folder = tmp_path_factory.mktemp("simulated")

    def build(precision, io="tensor"):
        path = folder / f"{precision}.{io}.onnx"
        if not path.exists():
            used = ranges() if precision in ("int8", "fp8") else None
            build_simulation(model(), BuildConfig(precision, io), ranges=used).save(path)
        return path

    return build


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_the_engine_gives_what_the_simulation_of_the_typed_graph_gives(simulated, model, ranges, photos, precision):
    graph = typed_graph(model(), BuildConfig(precision, "tensor"), ranges() if precision in ("int8", "fp8") else None)
    with Segmenter(simulated(precision)) as engine, Segmenter(open_simulation(graph), spec=engine.spec) as direct:
        np.testing.assert_array_equal(engine.logits(photos[0]), direct.logits(photos[0]))


def test_int8_is_simulated_in_float_and_not_fused(simulated, exported, photos):
    """Fused, its symmetric int8 would saturate on a CPU without VNNI."""
    with Segmenter(simulated("int8")) as engine, Segmenter(exported("fcn8s")) as reference:
        wanted, found = reference.logits(photos[0]), engine.logits(photos[0])
    noise = np.square(found - wanted).mean() / np.square(wanted).mean()
    assert 10 * np.log10(1 / noise) > 20
    assert not np.array_equal(wanted, found)


def test_the_sidecar_says_what_is_simulated_and_inspect_shows_it(simulated):
    facts = inspect_file(simulated("int8", "image"))
    assert facts["sidecar"]["target"] == {"cpu": "generic", "gpu": [], "simulates": "tensorrt"}
    assert facts["sidecar"]["precision"]["layers"]["conv1_2"] == "int8"
    assert facts["sidecar"]["precision"]["layers"]["score_fr"] == "fp16"


def test_the_graph_for_tensorrt_rtx_is_simulated_on_request(call, exported, ranges_file, tmp_path):
    made = ("build-engine", exported("fcn8s"), "--int8", "--ranges", ranges_file("fcn8s"), "-o", tmp_path / "sim.onnx")
    call(*made, "--backend", "simulation", "--simulate", "tensorrt-rtx")
    facts = inspect_file(tmp_path / "sim.onnx")
    assert facts["sidecar"]["target"]["simulates"] == "tensorrt-rtx"
    assert facts["nodes"]["Mul"] >= 14
    said = call(*made, "--backend", "onnxruntime", "--simulate", "tensorrt-rtx", code=2).err
    assert "no such simulation; got --simulate tensorrt-rtx for onnxruntime" in said
    assert "--backend simulation" in said.replace("=", " ")


def test_verify_holds_it_against_the_gate_of_its_precision(call, simulated, exported, photo_folder):
    said = call("verify", simulated("fp16"), "--reference", exported("fcn8s"), "--data", photo_folder, "--json")
    assert (json.loads(said.out)["precision"], json.loads(said.out)["failures"]) == ("fp16", [])


def test_bf16_and_fp8_have_gates_of_their_own(call, simulated, exported, photo_folder, monkeypatch):
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)  # a simulation needs no CPU with BF16
    against = ("--reference", exported("fcn8s"), "--data", photo_folder)
    found = json.loads(call("verify", simulated("bf16"), *against, "--json").out)
    assert (found["precision"], found["failures"]) == ("bf16", [])
    # Of a net with random weights, on noise.
    assert "got agreement 94" in (missed := call("verify", simulated("fp8"), *against, code=3).err)
    assert "required 97%" in missed


def test_benchmark_refuses_it(call, simulated, exported):
    arguments = (simulated("fp16"), "--vs", exported("fcn8s"), "--shape", "32x32")
    assert "a simulation, whose time means nothing" in call("benchmark", *arguments, code=2).err


def test_options_that_only_a_builder_takes_are_refused():
    with pytest.raises(UsageError, match="for simulation; got `workspace`"):
        check_simulation(BuildConfig("int8"), TensorRTConfig(base="fp32", workspace=64))
    check_simulation(BuildConfig("int8"), TensorRTConfig(base="fp32"))
    with pytest.raises(UsageError, match="for simulation; got `base`"):
        check_simulation(BuildConfig("fp16"), TensorRTConfig(base="fp32"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_cpu": "vnni"}, "a target CPU for a simulation; got `target_cpu=.vnni.`"),
        ({"winograd": ()}, "Winograd's algorithm; got `winograd=False` for simulation"),
    ],
)
def test_options_that_only_onnxruntime_takes_are_refused(model, options, message):
    with pytest.raises(UsageError, match=message):
        build_simulation(model(), BuildConfig(**options))


def test_its_file_ends_in_onnx(call, exported, tmp_path):
    said = call("build-engine", exported("fcn8s"), "--backend", "simulation", "-o", tmp_path / "s.engine", code=2)
    assert "ends in .onnx" in said.err
