import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcn_deploy.artifacts.ranges import CalibrationData, Histogram, Ranges
from fcn_deploy.calibration.histogram import HistogramBuilder
from fcn_deploy.errors import InputError
from fcn_deploy.files import sha256_file

DATA = CalibrationData(3, "ab" * 32, (48, 64), False)


def histogram_of(values):
    builder = HistogramBuilder()
    builder.add(np.asarray(values, np.float32))
    return builder.build()


@pytest.fixture
def ranges():
    histograms = {
        "image": histogram_of(np.random.default_rng(0).normal(size=1000)),
        "conv1_1/Relu": histogram_of([0.1, 1 / 3, 41.2]),
        "täglich": histogram_of([0]),
    }
    means = {"image": np.array([0.1, -1 / 3, 1e-30]), "täglich": np.array([0.0])}
    return Ranges("cd" * 32, DATA, histograms, means)


@pytest.fixture
def balanced(ranges):
    return replace(ranges, scales={"conv1_1/Relu": np.array([0.25, 1 / 3, 4.0])})


@pytest.fixture
def saved(ranges, tmp_path):
    path = tmp_path / "ranges.json"
    ranges.save(path)
    return path


def rewrite(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_file_gives_back_what_was_saved(ranges, saved):
    loaded = Ranges.load(saved)
    assert loaded.model_sha256 == ranges.model_sha256
    assert loaded.data == DATA
    assert list(loaded.histograms) == list(ranges.histograms)
    assert loaded.to_json() == ranges.to_json()
    for name, histogram in ranges.histograms.items():
        assert loaded.histograms[name].width == histogram.width
        np.testing.assert_array_equal(loaded.histograms[name].counts, histogram.counts)


def test_saving_what_was_loaded_writes_the_same_bytes(saved, tmp_path):
    Ranges.load(saved).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("data", [CalibrationData(1, "ef", None, True), CalibrationData(34, "ef", (1, 2), False)])
def test_what_was_observed_is_kept(ranges, tmp_path, data):
    Ranges("ab", data, ranges.histograms).save(tmp_path / "r.json")
    assert Ranges.load(tmp_path / "r.json").data == data


def test_floats_survive_to_the_last_bit(tmp_path):
    @settings(max_examples=50, deadline=None)
    @given(hnp.arrays(np.float32, 5, elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
    def check(values):
        before = histogram_of(values)
        Ranges("", DATA, {"t": before}).save(tmp_path / "r.json")
        after = Ranges.load(tmp_path / "r.json").histograms["t"]
        assert after.to_json() == before.to_json()

    check()


def test_the_file_is_the_contracts(ranges, saved):
    data = json.loads(saved.read_text())
    assert list(data) == ["format", "model_sha256", "data", "histograms", "means"]
    assert data["format"] == 1
    assert data["data"] == {"count": 3, "sha256": "ab" * 32, "size": [48, 64], "random": False}
    assert list(data["histograms"]) == list(ranges.histograms)
    assert list(data["histograms"]["image"]) == ["min", "max", "lo", "hi", "counts"]
    assert data["means"] == {"image": [0.1, -1 / 3, 1e-30], "täglich": [0.0]}


def test_means_survive_to_the_last_bit(ranges, saved):
    loaded = Ranges.load(saved)
    assert list(loaded.means) == list(ranges.means)
    for name, mean in ranges.means.items():
        assert loaded.means[name].dtype == np.float64
        np.testing.assert_array_equal(loaded.means[name], mean)


def test_a_file_without_means_is_read_and_written_back_as_it_was(ranges, saved, tmp_path):
    Ranges(ranges.model_sha256, DATA, ranges.histograms).save(saved)
    assert "means" not in json.loads(saved.read_text())
    loaded = Ranges.load(saved)
    assert loaded.means == {}
    assert loaded.dumps() == saved.read_bytes()


def test_scales_survive_to_the_last_bit(balanced, tmp_path):
    balanced.save(tmp_path / "balanced.json")
    loaded = Ranges.load(tmp_path / "balanced.json")
    assert list(loaded.scales) == ["conv1_1/Relu"]
    np.testing.assert_array_equal(loaded.scales["conv1_1/Relu"], balanced.scales["conv1_1/Relu"])


def test_a_file_with_scales_says_that_it_cannot_be_read_without_them(ranges, balanced, saved, tmp_path):
    balanced.save(tmp_path / "balanced.json")
    assert json.loads((tmp_path / "balanced.json").read_text())["requires"] == ["scales"]
    assert not {"requires", "scales"} & set(json.loads(saved.read_text()))


@pytest.mark.parametrize("value", [[0.0], [-1.0], [], ["1"], [None], [[1.0]], 1.0, "wide", {"a": 1}, [float("nan")]])
def test_malformed_scales_are_an_input_error(balanced, tmp_path, value):
    path = tmp_path / "balanced.json"
    balanced.save(path)
    rewrite(path, lambda data: data.update(scales={"conv1_1/Relu": value}))
    with pytest.raises(InputError):
        Ranges.load(path)


@pytest.mark.parametrize("scale", [np.zeros(2), np.ones((1, 2)), np.array([1.0, np.inf]), np.ones(2, np.float32)])
def test_scales_are_validated_when_made(ranges, scale):
    with pytest.raises(InputError, match="bad scales of tensor image"):
        replace(ranges, scales={"image": scale})


def test_a_calibrated_file_holds_no_absolute_path(ranges_file, photo_folder, exported):
    text = ranges_file("fcn8s").read_text()
    for path in (photo_folder, exported("fcn8s"), ranges_file("fcn8s")):
        assert str(path) not in text
        assert path.name not in text
    assert not re.search(r'"/', text)


@pytest.mark.parametrize("version", [2, 0, "1", None, 1.5])
def test_an_unknown_format_is_an_input_error(saved, version):
    rewrite(saved, lambda data: data.update(format=version))
    with pytest.raises(InputError, match="has an unknown format; got") as caught:
        Ranges.load(saved)
    assert caught.value.exit_code == 6
    assert str(saved) in str(caught.value)
    assert '"format": 1' in str(caught.value)


def test_a_file_without_a_format_is_an_input_error(saved):
    rewrite(saved, lambda data: data.pop("format"))
    with pytest.raises(InputError, match="unknown format"):
        Ranges.load(saved)


@pytest.mark.parametrize("content", ["", "{", "nonsense", "[]", "3", "null", '"text"', "\xff\xfe"])
def test_a_file_that_is_no_json_object_is_an_input_error(saved, content):
    saved.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=re.escape(str(saved))):
        Ranges.load(saved)


@pytest.mark.parametrize("key", ["model_sha256", "data", "histograms"])
def test_a_missing_key_is_an_input_error(saved, key):
    rewrite(saved, lambda data: data.pop(key))
    with pytest.raises(InputError, match=f"{re.escape(str(saved))} is malformed; got .*{key}"):
        Ranges.load(saved)


@pytest.mark.parametrize("value", [None, 3, "text", [1], {"count": 3}])
def test_malformed_data_is_an_input_error(saved, value):
    rewrite(saved, lambda data: data.update(data=value))
    with pytest.raises(InputError, match="is malformed"):
        Ranges.load(saved)


GOOD = {"min": 0, "max": 1, "lo": 0, "hi": 1, "counts": [1]}
BAD_HISTOGRAMS = {
    "null": None,
    "a list": [],
    "null for a tensor": {"t": None},
    "empty": {"t": {}},
    "without counts": {"t": {"min": 0, "max": 1, "lo": 0, "hi": 1}},
    "text for min": {"t": {**GOOD, "min": "a"}},
    "text in counts": {"t": {**GOOD, "counts": ["a"]}},
    "ragged counts": {"t": {**GOOD, "counts": [1, [2]]}},
    "null in counts": {"t": {**GOOD, "counts": [None]}},
    "negative counts": {"t": {**GOOD, "counts": [-1]}},
    "counts past 64 bits": {"t": {**GOOD, "counts": [2**70]}},
    "counts with a fraction": {"t": {**GOOD, "counts": [1.5]}},
    "min past a float": {"t": {**GOOD, "min": 10**400}},
    "nan for max": {"t": {**GOOD, "max": float("nan")}},
    "max past the last bin": {"t": {**GOOD, "max": 2}},
}


@pytest.mark.parametrize("value", BAD_HISTOGRAMS.values(), ids=BAD_HISTOGRAMS)
def test_malformed_histograms_are_an_input_error(saved, value):
    rewrite(saved, lambda data: data.update(histograms=value))
    with pytest.raises(InputError) as caught:
        Ranges.load(saved)
    assert caught.value.exit_code == 6
    assert str(saved) in str(caught.value)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"cannot read {tmp_path / 'none.json'}; got No such file")):
        Ranges.load(tmp_path / "none.json")


def test_a_path_that_cannot_be_written_is_an_input_error(ranges, tmp_path):
    with pytest.raises(InputError, match="no folder"):
        ranges.save(tmp_path / "none" / "ranges.json")


def test_histograms_are_kept_whatever_their_counts(tmp_path):
    counts = np.array([2**62, 0, 1], np.int64)
    Ranges("", DATA, {"t": Histogram(0.0, 3.0, 0.0, 3.0, counts)}).save(tmp_path / "r.json")
    np.testing.assert_array_equal(Ranges.load(tmp_path / "r.json").histograms["t"].counts, counts)


def test_a_key_that_a_later_version_added_is_passed_over(saved):
    expected = Ranges.load(saved).data
    rewrite(saved, lambda data: data["data"].update(camera="front"))
    assert Ranges.load(saved).data == expected


BAD_MEANS = {
    "null": None,
    "a list": [[1.0]],
    "a number": {"t": 1.0},
    "nothing": {"t": []},
    "null in them": {"t": [1.0, None]},
    "text": {"t": ["1"]},
    "true": {"t": [1.0, True]},
    "nested": {"t": [[1.0]]},
    "nan": {"t": [float("nan")]},
    "infinity": {"t": [float("inf")]},
    "past a float": {"t": [10**400]},
}


@pytest.mark.parametrize("value", BAD_MEANS.values(), ids=BAD_MEANS)
def test_malformed_means_are_an_input_error(saved, value):
    rewrite(saved, lambda data: data.update(means=value))
    with pytest.raises(InputError) as caught:
        Ranges.load(saved)
    assert caught.value.exit_code == 6
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize("mean", [np.zeros(0), np.zeros((2, 2)), np.zeros(2, np.float32), np.array([np.nan])], ids=repr)
def test_means_are_validated_when_made(mean):
    with pytest.raises(InputError, match="bad means of tensor t"):
        Ranges("ab", DATA, {}, {"t": mean})


def test_ranges_are_shown_in_one_line(ranges):
    assert repr(ranges) == "Ranges(3 tensors, 3 images, model cdcdcdcdcdcd...)"


def test_ranges_know_the_hash_of_their_file(ranges, saved):
    assert ranges.sha256 == sha256_file(saved)


def test_ranges_are_saved_and_loaded_by_paths_that_are_strings(ranges, tmp_path):
    ranges.save(str(tmp_path / "r.json"))
    assert Ranges.load(str(tmp_path / "r.json")).to_json() == ranges.to_json()


def test_ranges_of_another_model_are_refused(ranges):
    ranges.require_model("cd" * 32)
    with pytest.raises(InputError, match=r"belong to another model; got ranges of cdcd.*expected ranges of abab"):
        ranges.require_model("ab" * 32)
