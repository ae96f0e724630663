import json

import pytest

from fcn_deploy.artifacts.sidecar import sidecar_path
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.onnxruntime import build_onnxruntime
from fcn_deploy.errors import InputError
from fcn_deploy.mixed_precision.precision_map import read_precision_map


@pytest.fixture
def layers(candidates, tmp_path):
    """What the sidecar of an engine says of its layers."""
    made = candidates(int8_layers=("conv2_1", "fc6"))
    build_onnxruntime(made.model, made.config, made.ranges).save(tmp_path / "engine.onnx")
    return json.loads(sidecar_path(tmp_path / "engine.onnx").read_text())["precision"]["layers"]


def written(tmp_path, document):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(document))
    return path


def test_a_sidecar_is_a_map_and_gives_the_same_engine_again(candidates, layers, tmp_path):
    made = candidates()
    found = read_precision_map(sidecar_path(tmp_path / "engine.onnx"), made.model)
    assert found == ("conv2_1", "fc6")
    config = BuildConfig("int8", int8_layers=found)
    assert build_onnxruntime(made.model, config, made.ranges).data == (tmp_path / "engine.onnx").read_bytes()
    assert read_precision_map(written(tmp_path, {"layers": layers}), made.model) == found
    halves = {name: "fp16" if precision == "fp32" else precision for name, precision in layers.items()}
    assert read_precision_map(written(tmp_path, {"layers": halves}), made.model) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv9_9": "int8"}, "names layers that the model does not have; got conv9_9"),
        ({"conv2_1": "int4"}, "unknown precisions .*; got int4"),
        ({"upscore8": "int8"}, "asks for INT8 in layers that cannot be quantised; got upscore8"),
        ({"fc6": None}, "unknown precisions"),
    ],
)
def test_a_map_of_other_layers_is_refused(candidates, layers, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read_precision_map(written(tmp_path, {"layers": {**layers, **change}}), candidates().model)


def test_a_map_that_lacks_a_layer_is_refused(candidates, layers, tmp_path):
    del layers["conv3_2"]
    with pytest.raises(InputError, match="lacks layers; got conv3_2"):
        read_precision_map(written(tmp_path, {"layers": layers}), candidates().model)


@pytest.mark.parametrize("document", [[], {}, {"layers": []}, {"layers": {}}, {"precision": 3}, 7])
def test_what_is_not_a_map_is_refused(candidates, tmp_path, document):
    with pytest.raises(InputError, match="is not a precision map"):
        read_precision_map(written(tmp_path, document), candidates().model)
