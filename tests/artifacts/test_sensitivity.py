import json
import math

import pytest

from fcn_deploy.artifacts.sensitivity import Sensitivity
from fcn_deploy.errors import InputError
from tests.support.deployments import sensitivity_json


def test_what_was_written_is_read_again():
    found = Sensitivity.from_json(sensitivity_json())
    assert found.mix.sqnr == math.inf
    assert [layer.int8 for layer in found.layers] == [False, True]
    assert json.loads(json.dumps(found.to_json())) == sensitivity_json()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("target", 3),
        ("images", "4"),
        ("shape", [1]),
        ("mix", 3),
        ("mix", {}),
        ("layers", 3),
        ("layers", [3]),
    ],
)
def test_a_sensitivity_that_is_malformed_is_an_input_error(key, value):
    with pytest.raises(InputError):
        Sensitivity.from_json({**sensitivity_json(), key: value})


@pytest.mark.parametrize(("key", "value"), [("name", 3), ("int8", 1), ("macs", 1.5), ("alone", {}), ("float_ms", "1")])
def test_a_layer_of_a_sensitivity_that_is_malformed_is_an_input_error(key, value):
    data = sensitivity_json()
    data["layers"][0] = {**data["layers"][0], key: value}
    with pytest.raises(InputError):
        Sensitivity.from_json(data)
