"""Simulations of TensorRT graphs as engines: their gates without a GPU."""

import json

import numpy as np
import pytest

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.diagnostics.inspection import inspect
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.tensorrt.typed_graph import simulate, typed_graph
from fcn_deploy.errors import UsageError
from fcn_deploy.runtime import Segmenter
from fcn_deploy.workflows import steps


@pytest.fixture(scope="module")
def simulated(exported, ranges_file, tmp_path_factory):
    """Builds a simulation of a precision, once."""
    folder = tmp_path_factory.mktemp("simulated")

    def build(precision, io="tensor"):
        path = folder / f"{precision}.{io}.onnx"
        if not path.exists():
            ranges = ranges_file("fcn8s") if precision == "int8" else None
            steps.build(exported("fcn8s"), BuildConfig(precision, io), ranges, backend="simulation").save(path)
        return path

    return build


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_gives_what_the_typed_graph_is_simulated_to_give(simulated, exported, ranges_file, photos, precision):
    ranges = Ranges.load(ranges_file("fcn8s")) if precision == "int8" else None
    graph = typed_graph(exported("fcn8s").read_bytes(), BuildConfig(precision, "tensor"), ranges)
    with Segmenter(simulated(precision)) as engine, Segmenter(simulate(graph), spec=engine.spec) as direct:
        np.testing.assert_array_equal(engine.logits(photos[0]), direct.logits(photos[0]))


def test_int8_is_simulated_in_float_and_not_fused(simulated, exported, photos):
    """Fused, its symmetric int8 would saturate on a CPU without VNNI."""
    with Segmenter(simulated("int8")) as engine, Segmenter(exported("fcn8s")) as reference:
        wanted, found = reference.logits(photos[0]), engine.logits(photos[0])
    noise = np.square(found - wanted).mean() / np.square(wanted).mean()
    assert 10 * np.log10(1 / noise) > 20
    assert not np.array_equal(wanted, found)


def test_the_sidecar_says_what_is_simulated_and_inspect_takes_its_word(simulated):
    facts = inspect(simulated("int8", "image"))
    assert facts["sidecar"]["target"] == {"cpu": "generic", "gpu": [], "simulates": "tensorrt"}
    assert facts["sidecar"]["precision"]["layers"]["conv1_2"] == "int8"
    assert facts["sidecar"]["precision"]["layers"]["score_fr"] == "fp16"


def test_verify_holds_it_against_the_gate_of_its_precision(call, simulated, exported, photo_folder):
    said = call("verify", simulated("fp16"), "--reference", exported("fcn8s"), "--data", photo_folder, "--json")
    assert (json.loads(said.out)["precision"], json.loads(said.out)["failures"]) == ("fp16", [])


def test_its_speed_is_nobodys(call, simulated, exported):
    arguments = (simulated("fp16"), "--vs", exported("fcn8s"), "--shape", "32x32")
    assert "of speed it says nothing" in call("benchmark", *arguments, code=2).err


def test_what_only_a_builder_does_is_refused(exported, ranges_file):
    config = BuildConfig("int8")
    with pytest.raises(UsageError, match="for simulation; got workspace"):
        steps.check_build("simulation", config, TensorRTConfig(base="fp32", workspace=64))
    steps.check_build("simulation", config, TensorRTConfig(base="fp32"))


def test_it_is_an_onnx_file(call, exported, tmp_path):
    said = call("build-engine", exported("fcn8s"), "--backend", "simulation", "-o", tmp_path / "s.engine", code=2)
    assert "ends in .onnx" in said.err
