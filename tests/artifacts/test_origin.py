import json
from dataclasses import asdict

import pytest

from fcn_deploy.artifacts.origin import LayerCost, Origin
from fcn_deploy.errors import InputError
from fcn_deploy.files import dumps_json
from tests.support.deployments import summary

FOUND = summary()


def written():
    return json.loads(dumps_json(FOUND.origin.to_json()))


def test_an_origin_comes_back():
    assert Origin.from_json(written()) == FOUND.origin


def test_layers_come_back():
    data = json.loads(dumps_json([asdict(layer) for layer in FOUND.layers]))
    assert tuple(map(LayerCost.from_json, data)) == FOUND.layers


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("command", "fcn-deploy"),
        ("command", [3]),
        ("created", None),
        ("made_with", []),
        ("made_with", {"numpy": 2}),
        ("source", {"onnx_sha256": 3}),
        ("source", {"onnx_sha256": "a", "ranges_sha256": 3}),
        ("source", {"onnx_sha256": "a", "calibration": [1]}),
        ("spec", {}),
    ],
)
def test_a_bad_value_is_an_input_error(key, value):
    with pytest.raises(InputError):
        Origin.from_json({**written(), key: value})


def test_a_checkpoint_without_a_hash_is_an_input_error():
    data = written()
    data["spec"]["checkpoint"]["sha256"] = 3
    with pytest.raises(InputError, match="summary checkpoint"):
        Origin.from_json(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", 1), ("op", None), ("output", "1x2"), ("output", [1.5]), ("parameters", None), ("macs", "many")],
)
def test_a_bad_layer_is_an_input_error(key, value):
    data = {**asdict(FOUND.layers[0]), "output": [1, 2], key: value}
    with pytest.raises(InputError):
        LayerCost.from_json(data)
