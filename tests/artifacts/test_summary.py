import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.measures import Drop, GroundTruth, Parity, Ratio
from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.artifacts.summary import EngineSummary, Summary
from fcn_deploy.errors import InputError
from fcn_deploy.files import dumps_json
from tests.support.deployments import summary as deployed
from tests.support.deployments import write_deployment

# As version 0.1.0 writes it.
GOLDEN = Path(__file__).parent / "golden" / "summary.json"
# As it wrote it before summaries said what the ground truth is worth.
BEFORE_IGNORE_INDICES = GOLDEN.with_name("summary_before_ignore_indices.json")
BEFORE_RESUMED = GOLDEN.with_name("summary_before_resumed.json")
BEFORE_SHIP = GOLDEN.with_name("summary_before_ship.json")
BEFORE_TRUTH = GOLDEN.with_name("summary_before_truth.json")

SUMMARY = Summary(
    model="fcn16s.onnx",
    variant="fcn16s",
    export_error=1e-6,
    calibration={"observed": 1000, "judged": 1000},
    shape=(1024, 2048),
    pytorch_ms=10000.0,
    pytorch_miou=81.82,
    engines=(
        EngineSummary(
            file="fcn16s.fp32.onnx",
            bytes=537_000_000,
            precision="fp32",
            gate=Gate(1.0, True, None, 0.0, ("agreement>=99.99%",)),
            failures=(),
            parity=Parity(100, 1.0, 1.5e-6, math.inf, 1.0, 1.0),
            miou=900 / 11,
            miou_drop=Drop(0.0, 0.0, 0.0),
            median_ms=2000.0,
            percentiles_ms={"90": 2000.0, "95": 2000.0, "99.5": 2000.0},
            vs_pytorch=Ratio(0.2, 0.2, 0.2),
            vs_fp32=Ratio(1.0, 1.0, 1.0),
        ),
        EngineSummary(
            file="fcn16s.int8.onnx",
            bytes=134_500_000,
            precision="int8",
            gate=Gate(0.95, False, None, 10.25, ("miou_drop<=0.5",)),
            failures=("mIoU drops by 10.250 points, allowed 0.5",),
            parity=Parity(100, 0.95),
            miou=900 / 11,
            miou_drop=Drop(10.25, -0.5, 11.75),
            median_ms=1000.0,
            percentiles_ms={"90": 1400.0, "95": 1450.0, "99.5": 1495.0},
            vs_pytorch=Ratio(0.1, 0.075, 0.125),
            vs_fp32=Ratio(0.5, 0.375, 0.625),
        ),
    ),
    truth=GroundTruth(921600, 0.25, (11, 255), ("tram", "bus"), {"bus": 0.125}, 6.5, ignore_indices=(255, 11)),
    normalization=Normalization(assumed=True),
    warnings=("the normalisation was assumed",),
    ship=Recommendation("fcn16s.fp32.onnx", "INT8 is slower than FP32 here", Ratio(1.0, 1.0, 1.0)),
    version="0.1.0",
)


def golden():
    return json.loads(GOLDEN.read_text())


def test_a_summary_is_written_as_the_golden_file_key_for_key():
    assert dumps_json(SUMMARY.to_json()) + "\n" == GOLDEN.read_text()


def test_the_golden_file_is_read_with_null_for_what_json_cannot_hold():
    found = Summary.from_json(golden())
    fp32, int8 = found.engines
    assert fp32 == replace(SUMMARY.engines[0], parity=replace(SUMMARY.engines[0].parity, sqnr=None))
    assert math.isnan(int8.parity.agreement_low)
    assert math.isnan(int8.parity.agreement_high)
    assert replace(int8, parity=SUMMARY.engines[1].parity) == SUMMARY.engines[1]
    assert replace(found, engines=SUMMARY.engines) == SUMMARY
    assert dumps_json(found.to_json()) + "\n" == GOLDEN.read_text()


def test_a_summary_from_before_it_said_what_to_ship_is_read():
    assert replace(Summary.from_json(json.loads(BEFORE_SHIP.read_text())), ship=SUMMARY.ship) == (
        Summary.from_json(golden())
    )


@pytest.mark.parametrize(
    "ship", [3, {}, {"engine": 3, "reason": "", "speedup": None}, {"engine": None, "reason": None, "speedup": None}]
)
def test_a_bad_recommendation_is_an_input_error(ship):
    with pytest.raises(InputError):
        Summary.from_json({**golden(), "ship": ship})


def test_a_recommendation_without_an_engine_comes_back():
    none = replace(SUMMARY, ship=Recommendation(None, "no engine to ship: INT8 missed its gate"))
    assert Summary.from_json(json.loads(dumps_json(none.to_json()))).ship == none.ship


def test_a_summary_from_before_stages_were_taken_over_is_read():
    found = Summary.from_json(json.loads(BEFORE_RESUMED.read_text()))
    assert replace(found, ship=SUMMARY.ship) == Summary.from_json(golden())


def test_a_summary_from_before_all_ignored_values_were_stated_is_read():
    found = Summary.from_json(json.loads(BEFORE_IGNORE_INDICES.read_text()))
    assert found.truth.ignore_indices == ()
    assert replace(found, truth=SUMMARY.truth, ship=SUMMARY.ship) == Summary.from_json(golden())


def test_a_summary_from_before_ground_truth_was_described_is_read():
    found = Summary.from_json(json.loads(BEFORE_TRUTH.read_text()))
    assert (found.truth, found.normalization, found.warnings) == (None, None, ())
    assert [engine.parity.measured for engine in found.engines] == [True, True]
    added = {name: getattr(SUMMARY, name) for name in ("truth", "normalization", "warnings", "ship")}
    assert replace(found, **added) == Summary.from_json(golden())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("truth", {}),
        ("truth", 3),
        ("truth", {**SUMMARY.truth.to_json(), "ignored_values": "255"}),
        ("truth", {**SUMMARY.truth.to_json(), "absent_classes": [3]}),
        ("truth", {**SUMMARY.truth.to_json(), "predicted_absent_classes": {"bus": "often"}}),
        ("normalization", {"color": "RGB"}),
        ("warnings", "careful"),
    ],
)
def test_a_bad_value_of_what_was_added_is_an_input_error(key, value):
    with pytest.raises(InputError):
        Summary.from_json({**golden(), key: value})


def test_a_summary_passed_if_every_gate_did():
    assert not SUMMARY.passed
    assert replace(SUMMARY, engines=SUMMARY.engines[:1]).passed


def test_a_summary_of_the_first_version_is_read():
    data = golden()
    for engine in data["engines"]:
        del engine["percentiles_ms"], engine["gate"]["criteria"]
        del engine["parity"]["agreement_low"], engine["parity"]["agreement_high"]
    fp32, _ = Summary.from_json(data).engines
    assert (fp32.percentiles_ms, fp32.gate.criteria, fp32.parity.images) == ({}, (), 100)
    assert math.isnan(fp32.parity.agreement_low)


def test_a_summary_with_keys_of_a_later_version_is_read():
    data = golden()
    data["colour"] = data["engines"][0]["colour"] = data["engines"][0]["gate"]["colour"] = 1
    assert Summary.from_json(data).engines[0] == Summary.from_json(golden()).engines[0]


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_summary_of_an_unknown_format_is_an_input_error(version):
    with pytest.raises(InputError, match="the summary has an unknown format"):
        Summary.from_json({**golden(), "format": version})


ADDED = {"truth", "normalization", "warnings", "resumed", "ship"}


@pytest.mark.parametrize("key", sorted({*json.loads(GOLDEN.read_text())} - {"format", "passed"} - ADDED))
def test_a_key_that_a_summary_lacks_is_named(key):
    data = golden()
    del data[key]
    with pytest.raises(InputError, match=f"the summary is malformed; got KeyError: '{key}'"):
        Summary.from_json(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("calibration", 3),
        ("calibration", {"observed": "many"}),
        ("shape", [96]),
        ("shape", "96x128"),
        ("shape", [96, 1.5]),
        ("pytorch", None),
        ("pytorch", {"median_ms": "1", "miou": None}),
        ("export_error", "small"),
        ("engines", None),
        ("engines", [3]),
        ("engines", [{}]),
    ],
)
def test_a_bad_value_in_a_summary_is_an_input_error(key, value):
    with pytest.raises(InputError):
        Summary.from_json({**golden(), key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bytes", "1"),
        ("gate", {"passed": True}),
        ("failures", "none"),
        ("parity", {"images": 1.5, "agreement": 1.0}),
        ("parity", {"images": 1, "agreement": True}),
        ("miou", "81"),
        ("miou_drop", {"points": 1}),
        ("miou_drop", {"points": "1", "low": 0, "high": 2}),
        ("median_ms", "fast"),
        ("percentiles_ms", {"90": "fast"}),
        ("vs_fp32", None),
    ],
)
def test_a_bad_value_of_an_engine_in_a_summary_is_an_input_error(key, value):
    data = golden()
    data["engines"][1][key] = value
    with pytest.raises(InputError):
        Summary.from_json(data)


def test_what_a_report_needs_comes_back(tmp_path):
    found = write_deployment(tmp_path, deployed())
    assert found.gallery is not None
    assert Summary.from_json(json.loads((tmp_path / "summary.json").read_text())) == found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sha256", 3),
        ("class_iou", 3),
        ("class_iou", ["90"]),
        ("class_iou", [1.0]),
        ("layers", []),
        ("layers", {"a": 3}),
    ],
)
def test_a_bad_value_of_an_engine_that_a_report_shows_is_an_input_error(key, value):
    data = json.loads(dumps_json(deployed().to_json()))
    data["engines"][1][key] = value
    with pytest.raises(InputError):
        Summary.from_json(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [("origin", 3), ("origin", {}), ("layers", 3), ("layers", [3]), ("gallery", []), ("gallery", {}), ("engines", [])],
)
def test_a_bad_value_that_a_report_shows_is_an_input_error(key, value):
    with pytest.raises(InputError):
        Summary.from_json({**json.loads(dumps_json(deployed().to_json())), key: value})


@pytest.mark.parametrize("engine", ["fcn8s.int8.onnx", "other.onnx", ""])
def test_only_an_engine_that_met_its_gate_can_be_shipped(engine):
    data = json.loads(dumps_json(deployed().to_json()))
    data["ship"]["engine"] = engine
    data["engines"][1]["gate"]["passed"] = False
    with pytest.raises(InputError, match=r"summary ship; .*that met its gate: fcn8s\.fp32\.onnx"):
        Summary.from_json(data)
    data["ship"]["engine"] = "fcn8s.fp32.onnx"
    assert Summary.from_json(data).ship.engine == "fcn8s.fp32.onnx"
