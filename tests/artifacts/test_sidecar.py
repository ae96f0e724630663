import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.plan import Plan, PlanLayer, PlanTensor
from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.sidecar import EngineFile, Sidecar, Source, load_sidecar, sidecar_path
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.tuning import Tuning
from fcn_deploy.engines.engine import Engine
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.files import sha256_bytes

SPEC = ModelSpec("fcn8s", 8, 1.0, 2, ("sky", "building"), default_palette(2))
SIDECAR = Sidecar(
    engine=EngineFile("net.int8.onnx", "ab" * 32, 7),
    backend="onnxruntime",
    library="1.32.0",
    io="image",
    precision=Precision("int8", "fp32", "percentile", {"conv1_1": "fp32", "conv1_2": "int8"}, "int8"),
    spec=SPEC,
    source=Source("cd" * 32, "ef" * 32, {"count": 3, "size": None}),
    target={"cpu": "generic", "gpu": []},
    profiles=({"min": [1, 32, 32], "opt": [1, 64, 64], "max": [4, 128, 128]},),
    gate=Gate(0.983, True, None, 0.2, ("miou_drop<=0.5",)),
)


@pytest.fixture
def engine(tmp_path):
    """An engine file and its sidecar, as a builder writes them."""
    path = tmp_path / "net.int8.onnx"
    Engine(b"content", SIDECAR).save(path, SIDECAR.gate)
    return path


def rewrite(engine, change):
    path = sidecar_path(engine)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# The file


def test_it_lies_beside_the_engine_with_json_added_to_its_name():
    assert sidecar_path(Path("a/fcn8s.int8.engine")) == Path("a/fcn8s.int8.engine.json")
    assert sidecar_path(Path("net")) == Path("net.json")


PLAN = Plan("log", (PlanLayer("c", "conv", "", ("c",), ("x",), ("x",)),), {"x": PlanTensor("int8", (-1, 2), "NHWC")})


def test_the_layers_of_a_plan_stand_last_and_come_back():
    sidecar = replace(SIDECAR, plan=PLAN)
    data = json.loads(json.dumps(sidecar.to_json()))
    assert list(data)[-1] == "plan"
    assert Sidecar.from_json(data) == sidecar
    assert "plan" not in SIDECAR.to_json()


def test_a_sidecar_from_before_the_layers_of_plans_loads():
    data = json.loads((Path(__file__).parent / "golden" / "sidecar_before_plan.json").read_text())
    sidecar = Sidecar.from_json(data)
    assert (sidecar.backend, sidecar.precision.achieved, sidecar.plan) == ("tensorrt-rtx", "unknown", None)
    assert json.loads(json.dumps(sidecar.to_json())) == data


def test_it_comes_back_from_its_json():
    assert Sidecar.from_json(json.loads(json.dumps(SIDECAR.to_json()))) == SIDECAR


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Gate,
        st.floats(0, 1),
        st.booleans(),
        st.none() | st.floats(0, 1e6),
        st.none() | st.floats(-100, 100),
        st.lists(st.text()).map(tuple),
        st.none() | st.floats(0, 100),
    )
    | st.none(),
    st.builds(
        Precision,
        st.sampled_from(["fp32", "fp16", "bf16", "int8", "fp8"]),
        st.text(),
        st.none() | st.text(),
        st.dictionaries(st.text(), st.text()),
        st.text(),
        st.none() | st.booleans(),
        st.lists(st.text()).map(tuple),
        st.none() | st.dictionaries(st.text(), st.none() | st.text()),
        bias_corrected=st.none() | st.booleans(),
        weight_rounding=st.none() | st.sampled_from(["nearest", "correlated"]),
        tf32=st.none() | st.booleans(),
    ),
    st.builds(Source, st.text(), st.none() | st.text(), st.none() | st.dictionaries(st.text(), st.integers())),
)
def test_any_sidecar_comes_back_from_its_json(gate, precision, source):
    sidecar = replace(SIDECAR, gate=gate, precision=precision, source=source, profiles=())
    assert Sidecar.from_json(json.loads(json.dumps(sidecar.to_json()))) == sidecar


def test_the_json_has_the_keys_of_the_contract():
    data = json.loads(json.dumps(SIDECAR.to_json()))
    contract = {
        "format": 1,
        "engine": {"file", "sha256", "bytes"},
        "backend": "onnxruntime",
        "library": "1.32.0",
        "io": "image",
        "precision": {"requested", "base", "method", "layers", "achieved"},
        "profiles": [{"min": [1, 32, 32], "opt": [1, 64, 64], "max": [4, 128, 128]}],
        "target": {"cpu", "gpu"},
        "gate": {"agreement", "passed", "error", "miou_drop", "criteria", "speedup"},
        "spec": set(SPEC.to_json()),
        "source": {"onnx_sha256", "ranges_sha256", "calibration"},
    }
    assert {key: set(value) if isinstance(value, dict) else value for key, value in data.items()} == contract
    assert data["spec"]["format"] == 1


def test_what_the_audit_found_is_in_the_json_only_where_there_was_one():
    precision = replace(SIDECAR.precision, audited=False)
    assert "kept_fp32" not in precision.to_json()
    assert precision.to_json()["audited"] is False
    found = replace(SIDECAR, precision=replace(precision, audited=True, kept_fp32=("conv1_1/Relu",)))
    data = json.loads(json.dumps(found.to_json()))
    assert data["precision"]["kept_fp32"] == ["conv1_1/Relu"]
    assert Sidecar.from_json(data) == found


def test_whether_biases_were_corrected_is_in_the_json_only_where_something_was_quantised():
    assert "bias_corrected" not in SIDECAR.precision.to_json()
    for corrected in (True, False):
        data = json.loads(json.dumps(replace(SIDECAR.precision, bias_corrected=corrected).to_json()))
        assert data["bias_corrected"] is corrected
        assert Precision.from_json(data).bias_corrected is corrected
    with pytest.raises(InputError, match="bias_corrected; got 'yes'; expected true or false"):
        replace(SIDECAR.precision, bias_corrected="yes")


def test_how_weights_were_rounded_is_in_the_json_only_where_something_was_quantised():
    assert "weight_rounding" not in SIDECAR.precision.to_json()
    rounded = replace(SIDECAR.precision, weight_rounding="correlated")
    assert Precision.from_json(json.loads(json.dumps(rounded.to_json()))) == rounded
    with pytest.raises(InputError, match="weight_rounding; got 3; expected the name of one"):
        replace(SIDECAR.precision, weight_rounding=3)


def test_saving_an_engine_names_its_file_hash_and_size(engine):
    found = load_sidecar(engine)
    assert found.engine == EngineFile("net.int8.onnx", sha256_bytes(b"content"), 7)
    assert replace(found, engine=SIDECAR.engine) == SIDECAR


def test_it_holds_no_path_but_the_name(engine):
    text = sidecar_path(engine).read_text()
    assert str(engine.parent) not in text
    assert not re.search(r'"/', text)


def test_an_engine_without_a_gate_says_null(tmp_path):
    path = tmp_path / "net.onnx"
    Engine(b"content", replace(SIDECAR, gate=None)).save(path)
    assert json.loads(sidecar_path(path).read_text())["gate"] is None
    assert load_sidecar(path).gate is None


def test_a_gate_that_an_earlier_version_wrote_names_no_criteria():
    data = SIDECAR.to_json() | {"gate": {"agreement": 0.983, "passed": True, "error": None, "miou_drop": None}}
    assert Sidecar.from_json(data).gate == Gate(0.983, True)


def test_both_files_can_be_moved_and_renamed_together(engine, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    moved = engine.rename(folder / "renamed.onnx")
    sidecar_path(engine).rename(sidecar_path(moved))
    assert load_sidecar(moved).spec == SPEC


# What is refused


def test_a_missing_sidecar_is_an_artifact_error_that_says_where_it_should_be(engine):
    sidecar_path(engine).unlink()
    with pytest.raises(ArtifactError, match=re.escape(f"{engine} has no sidecar; expected {engine}.json")) as caught:
        load_sidecar(engine)
    assert caught.value.exit_code == 5
    assert "spec=" in str(caught.value)


@pytest.mark.parametrize("content", [b"contenT", b"", b"content\n"])
def test_the_sidecar_of_another_file_is_refused(engine, content):
    engine.write_bytes(content)
    with pytest.raises(ArtifactError, match="not the file its sidecar describes") as caught:
        load_sidecar(engine)
    message = str(caught.value)
    assert sha256_bytes(content)[:12] in message
    assert sha256_bytes(b"content")[:12] in message


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_format_is_an_artifact_error(engine, version):
    rewrite(engine, lambda data: data.update(format=version))
    with pytest.raises(ArtifactError, match=r"the sidecar has an unknown format.*make it again") as caught:
        load_sidecar(engine)
    assert caught.value.exit_code == 5
    assert str(sidecar_path(engine)) in str(caught.value)


def test_an_unknown_format_of_the_spec_is_an_artifact_error(engine):
    rewrite(engine, lambda data: data["spec"].update(format=7))
    with pytest.raises(ArtifactError, match='the model spec has an unknown format; got "format": 7'):
        load_sidecar(engine)


@pytest.mark.parametrize("content", ["", "{", "nonsense", "[]", "3", "null"])
def test_what_is_no_sidecar_is_an_artifact_error(engine, content):
    sidecar_path(engine).write_text(content)
    with pytest.raises(ArtifactError, match=re.escape(str(sidecar_path(engine)))):
        load_sidecar(engine)


@pytest.mark.parametrize(
    "key", ["engine", "backend", "library", "io", "precision", "spec", "source", "target", "profiles"]
)
def test_a_missing_key_is_named(key):
    data = SIDECAR.to_json()
    del data[key]
    with pytest.raises(InputError, match=f"the sidecar is malformed; got KeyError: '{key}'"):
        Sidecar.from_json(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("engine", None),
        ("engine", "net.onnx"),
        ("engine", {"file": "net.onnx"}),
        ("engine", {"file": "net.onnx", "sha256": 5, "bytes": 1}),
        ("precision", {"requested": "int4", "base": "fp32"}),
        ("precision", []),
        ("precision", {"requested": "int8"}),
        ("precision", {"requested": "fp16", "base": "fp16", "audited": "yes"}),
        ("precision", {"requested": "fp16", "base": "fp16", "kept_fp32": "conv1_1"}),
        ("precision", {"requested": "fp32", "base": "fp32", "tf32": "yes"}),
        ("precision", {"requested": "fp16", "base": "fp16", "achieved_layers": ["conv1_1"]}),
        ("spec", None),
        ("spec", {}),
        ("spec", []),
        ("source", {}),
        ("target", "x86"),
        ("target", None),
        ("profiles", None),
        ("profiles", 3),
        ("gate", {"passed": True}),
        ("gate", [1]),
        ("gate", "passed"),
        ("gate", {"agreement": "0.98", "passed": True}),
        ("gate", {"agreement": True, "passed": True}),
        ("gate", {"agreement": 98.3, "passed": True}),
        ("gate", {"agreement": 0.98, "passed": 1}),
        ("gate", {"agreement": 0.98, "passed": True, "error": -1.0}),
        ("gate", {"agreement": 0.98, "passed": True, "error": "small"}),
        ("gate", {"agreement": 0.98, "passed": True, "miou_drop": 101}),
        ("gate", {"agreement": 0.98, "passed": True, "miou_drop": [0.2]}),
        ("gate", {"agreement": 0.98, "passed": True, "criteria": "agreement>=97%"}),
        ("gate", {"agreement": 0.98, "passed": True, "criteria": [0.97]}),
    ],
)
def test_a_bad_value_is_an_input_error(key, value):
    with pytest.raises(InputError):
        Sidecar.from_json({**SIDECAR.to_json(), key: value})


@pytest.mark.parametrize("io", ["banana", None, 3])
def test_an_unknown_io_is_an_input_error(io):
    with pytest.raises(InputError, match="io"):
        Sidecar.from_json({**SIDECAR.to_json(), "io": io})


def test_a_missing_engine_is_an_input_error(engine):
    engine.unlink()
    with pytest.raises(InputError, match=re.escape(f"cannot read {engine}")):
        load_sidecar(engine)


def test_a_key_that_a_later_version_added_is_passed_over():
    data = SIDECAR.to_json()
    data["engine"]["colour"] = data["precision"]["colour"] = data["colour"] = 1
    assert Sidecar.from_json(data) == Sidecar.from_json(SIDECAR.to_json())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("profiles", [5]),
        ("profiles", [{"min": "abc"}]),
        ("profiles", [{"min": [1, 1, 1], "opt": [1, 1, 1], "max": [1, 0, 1]}]),
        ("target", {"gpu": 5}),
        ("target", {"gpu": [8.6]}),
    ],
)
def test_a_sidecar_that_somebody_edited_is_an_input_error(key, value):
    data = {**json.loads(json.dumps(SIDECAR.to_json())), key: value}
    with pytest.raises(InputError, match=f"sidecar {key}"):
        Sidecar.from_json(data)


TUNED = {"shape": "1x64x64", "threads": None, "cpu": "a", "milliseconds": {"one": 1.5, "other": 2}, "chosen": "one"}


def test_how_an_engine_was_tuned_comes_back_from_its_json():
    ratios = {"one": Ratio(1.0, 1.0, 1.0), "other": Ratio(1.3, 1.2, 1.4)}
    found = replace(SIDECAR, winograd=("conv4_1",), tuning=Tuning(**TUNED, ratios=ratios))
    assert Sidecar.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_tuning_from_before_ratios_were_recorded_is_read():
    data = {**SIDECAR.to_json(), "tuning": TUNED}
    assert Sidecar.from_json(json.loads(json.dumps(data))).tuning == Tuning(**TUNED)


@pytest.mark.parametrize(
    ("key", "value"),
    [("chosen", "third"), ("milliseconds", "one"), ("milliseconds", {"one": "fast"}), ("milliseconds", ["one"]),
     ("threads", "two"), ("shape", 3), ("cpu", None), ("ratios", 3), ("ratios", {"one": 3}),
     ("ratios", {"one": {"median": "1", "low": 1, "high": 1}})],
)  # fmt: skip
def test_a_bad_tuning_is_an_input_error(key, value):
    data = {**SIDECAR.to_json(), "tuning": {**TUNED, key: value}}
    with pytest.raises(InputError):
        Sidecar.from_json(json.loads(json.dumps(data)))


@pytest.mark.parametrize("value", ["conv4_1", [3], {"conv4_1": 1}])
def test_bad_names_of_layers_are_an_input_error(value):
    with pytest.raises(InputError, match="sidecar winograd"):
        Sidecar.from_json(json.loads(json.dumps({**SIDECAR.to_json(), "winograd": value})))


def test_an_engine_for_openvino_requires_a_reader_that_knows_it():
    """A version before OpenVINO would take its engine, an ONNX file, for one of ONNX Runtime."""
    sidecar = replace(
        SIDECAR, backend="openvino", precision=Precision("int8", "bf16", "mse", {"conv1": "bf16"}, "int8")
    )
    data = sidecar.to_json()
    assert data["requires"] == ["openvino"]
    assert Sidecar.from_json(json.loads(json.dumps(data))) == sidecar
    assert "requires" not in SIDECAR.to_json()
    with pytest.raises(ArtifactError, match="misunderstand the sidecar; got it requires 'later'"):
        Sidecar.from_json({**data, "requires": ["openvino", "later"]})
