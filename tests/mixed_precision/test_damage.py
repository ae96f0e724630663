import json
import math

import numpy as np
import pytest

from fcn_deploy.artifacts.sensitivity import Fidelity, LayerSensitivity, Sensitivity
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.parity import Output, ParityTally
from fcn_deploy.graph.model import parse
from fcn_deploy.mixed_precision.damage import complete, measure_sensitivity, without
from fcn_deploy.mixed_precision.layer_times import time_layers
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.image import normalize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from tests.support.openvino import needs_openvino


def fidelity(made, reference, int8, photos):
    first, second = (
        Segmenter(OnnxRuntimeBackend(made.make(layers)), spec=made.model.spec) for layers in (reference, int8)
    )
    tally = ParityTally()
    for photo in photos:
        logits = first.logits(photo), second.logits(photo)
        tally.add(*(Output(each.argmax(0), each) for each in logits))
    return tally.result()


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_the_cost_of_every_layer_is_that_of_a_run_of_its_own(candidates, photos, target):
    made = candidates(target=target)
    found = measure_sensitivity(made, photos[:3])
    assert (found.target, found.method, found.images, found.shape) == (target, "mse", 3, photos[0].shape[:2])
    assert tuple(layer.name for layer in found.layers) == made.layers
    assert {layer.name for layer in found.layers if layer.int8} == set(made.start)
    whole = fidelity(made, (), made.start, photos[:3])
    assert found.mix.sqnr == pytest.approx(whole.sqnr, abs=0.3)
    for layer in found.layers:
        alone = fidelity(made, (), (layer.name,), photos[:3])
        assert layer.alone.sqnr == pytest.approx(alone.sqnr, abs=0.3)
        assert layer.alone.agreement == pytest.approx(alone.agreement, abs=5e-3)
        if layer.int8:
            others = fidelity(made, (), without(made.start, layer.name), photos[:3])
            assert layer.others.sqnr == pytest.approx(others.sqnr, abs=0.3)
        else:
            assert layer.others == found.mix


@pytest.mark.parametrize("target", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_times_are_of_the_library_at_hand_and_macs_of_all(candidates, photos, target):
    timed, simulated = (measure_sensitivity(candidates(target=each), photos[:1]) for each in (target, "tensorrt"))
    assert len(timed.layers) >= len(simulated.layers)
    for layer in timed.layers:
        assert layer.float_ms is not None
        assert layer.int8_ms is not None
        assert layer.saving == layer.float_ms - layer.int8_ms
    assert all(layer.float_ms is None and layer.saving == layer.macs / 1e9 > 0 for layer in simulated.layers)
    macs = {layer.name: layer.macs for layer in timed.layers}
    assert all(macs[layer.name] == layer.macs for layer in simulated.layers)


def test_times_are_compared_only_if_those_of_all_layers_are_known(caplog):
    known = {"float": {"a": 2.0, "b": 3.0}, "int8": {"a": 1.0, "b": 1.5}}
    assert complete(known, ["a", "b"]) == known
    assert not caplog.messages
    assert complete({**known, "int8": {"a": 1.0}}, ["a", "b"]) == {"float": {}, "int8": {}}
    assert caplog.messages == ["the profile does not tell the times of b; savings are counted in MACs instead"]


def test_no_images_are_refused(candidates):
    with pytest.raises(InputError, match="no images to measure on"):
        measure_sensitivity(candidates(), [])


def layer(name, alone, others, saving=1.0, int8=True):
    return LayerSensitivity(name, int8, 10, Fidelity(alone, 30), Fidelity(others, 30), 2.0, 2.0 - saving)


def test_damage_is_the_mean_of_a_layer_s_cost_as_the_first_and_as_the_last():
    first, second = layer("a", alone=0.99, others=0.97), layer("b", alone=0.995, others=0.985)
    kept = layer("c", alone=0.5, others=0.96, int8=False)
    found = Sensitivity("onnxruntime", "mse", 1, (8, 8), Fidelity(0.96, 20), (first, second, kept))
    assert found.damage(first) == pytest.approx((0.01 + 0.01) / 2)
    assert found.damage(second) == pytest.approx((0.005 + 0.025) / 2)
    assert [each.name for each in found.by_damage()] == ["b", "a"]


def test_json_has_null_for_what_is_infinite():
    exact = LayerSensitivity("a", True, 10, Fidelity(1.0, math.inf), Fidelity(1.0, 40.0))
    document = Sensitivity("tensorrt", "mse", 1, (8, 9), Fidelity(1.0, 30.0), (exact,)).to_json()
    assert json.loads(json.dumps(document, allow_nan=False))["layers"][0]["alone"] == {"agreement": 1.0, "sqnr": None}
    assert document["format"] == 1


def test_every_layer_is_timed_in_float_and_in_int8(candidates, photos):
    made = candidates()
    feeds = {"image": normalize(np.repeat(photos[0][np.newaxis], 2, 0), made.model.spec.normalization)}
    times = time_layers({"float": made.make(()), "int8": made.make(made.layers)}, made.layers, feeds, rounds=2)
    for name in ("float", "int8"):
        assert set(times[name]) == set(made.layers)
        assert all(milliseconds >= 0 for milliseconds in times[name].values())
    assert {node.op_type for node in parse(made.make(())).graph} >= {"Conv", "Relu"}
