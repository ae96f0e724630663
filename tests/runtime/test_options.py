"""The options that engines are opened with: their checks, and which kind of file takes which."""

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from fcn_deploy.errors import UsageError
from fcn_deploy.runtime.options import RuntimeOptions, kind_of

ALL = RuntimeOptions(threads=2, provider="cuda", device=1, allow_host_code=True, tile=(64, 96), color="bgr")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"threads": 0}, "bad number of threads; got 0; expected 1 or more"),
        ({"threads": "2"}, "bad number of threads; got '2'"),
        ({"threads": True}, "bad number of threads; got True"),
        ({"device": True}, "bad `device`; got True"),
        ({"provider": "gpu"}, "unknown provider; got 'gpu'; expected cpu or cuda"),
        ({"device": -1}, "bad `device`; got -1; expected the index of a GPU, 0 or more"),
        ({"tile": (0, 8)}, "bad size of tiles; got (0, 8)"),
        ({"tile": "64x64"}, "bad size of tiles; got 64x64; expected height and width"),
        ({"color": "hsv"}, "unknown `color` of images; got 'hsv'; expected rgb or bgr"),
    ],
)
def test_a_bad_value_is_a_usage_error_when_the_options_are_made(values, words):
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        RuntimeOptions(**values)
    assert caught.value.exit_code == 2


def test_options_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ALL.threads = 3  # type: ignore[misc]


def test_asked_options_are_those_without_their_default():
    assert RuntimeOptions().asked == ()
    assert RuntimeOptions(provider="cpu", device=0).asked == ("provider", "device")
    assert ALL.asked == ("threads", "provider", "device", "allow_host_code", "tile", "color")


def test_only_resets_every_other_option():
    assert ALL.only(("threads", "tile")) == RuntimeOptions(threads=2, tile=(64, 96))
    assert ALL.only(ALL.asked) == ALL
    assert ALL.only(()) == RuntimeOptions()


@pytest.mark.parametrize(
    ("kind", "provider", "taken"),
    [
        ("onnx", None, {"threads", "provider", "fast_math", "tile", "color"}),
        ("onnx", "cpu", {"threads", "provider", "fast_math", "tile", "color"}),
        ("onnx", "cuda", {"threads", "provider", "device", "tile", "color"}),
        ("plan", "cuda", {"device", "allow_host_code", "contexts", "graphs", "specialization", "tile", "color"}),
        ("checkpoint", "cuda", {"threads", "tile", "color"}),
    ],
)
def test_each_kind_of_file_takes_its_own_options(kind, provider, taken):
    options = RuntimeOptions(threads=2, provider=provider, device=1, allow_host_code=True, tile=(64, 96), color="bgr")
    assert set(options.taken_by(kind)) == taken
    assert set(options.for_kind(kind).asked) == taken & set(options.asked)


def test_an_option_that_one_of_several_files_takes_is_accepted():
    ALL.check_taken([("a.onnx", "onnx"), ("b.engine", "plan")])
    RuntimeOptions().check_taken([])


@pytest.mark.parametrize(
    ("options", "kinds", "words"),
    [
        ({"threads": 2}, {"a.engine": "plan"}, "`threads` is for ONNX engines and models, and for checkpoints; got a"),
        (
            {"provider": "cpu"},
            {"w.pth": "checkpoint"},
            "`provider` is for engines of ONNX Runtime and exported models; got w",
        ),
        (
            {"device": 0},
            {"a.onnx": "onnx", "b.onnx": "onnx"},
            "`device` is for TensorRT plans, and for ONNX with `prov",
        ),
        ({"device": 0}, {"a.onnx": "onnx", "b.onnx": "onnx"}, "got a.onnx, b.onnx; fix: leave it out"),
        ({"allow_host_code": True}, {"a.onnx": "onnx"}, "`allow_host_code` is for TensorRT plans; got a.onnx"),
        (
            {"fast_math": True},
            {"a.engine": "plan", "w.pth": "checkpoint"},
            "`fast_math` is for engines of ONNX Runtime",
        ),
        ({"fast_math": True, "provider": "cuda"}, {"a.onnx": "onnx"}, "exported models on a CPU; got a.onnx"),
    ],
)
def test_an_option_that_no_file_takes_is_a_usage_error(options, kinds, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        RuntimeOptions(**options).check_taken(list(kinds.items()))


@pytest.mark.parametrize(
    ("name", "kind"), [("a.onnx", "onnx"), ("a.engine", "plan"), ("b/a.plan", "plan"), ("a.pth", "onnx"), ("a", "onnx")]
)
def test_the_kind_of_a_file_is_read_from_its_suffix(name, kind):
    assert kind_of(name) == kind_of(Path(name)) == kind
