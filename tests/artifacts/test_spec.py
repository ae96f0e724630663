import copy
import dataclasses
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fcn_deploy
from fcn_deploy.artifacts.geometry import AT_ONCE, PAPER, Geometry, Padding
from fcn_deploy.artifacts.json import check_format
from fcn_deploy.artifacts.normalization import TORCHVISION, Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.receptive_field import ReceptiveField
from fcn_deploy.artifacts.shapes import ImageShape, TensorSpec
from fcn_deploy.artifacts.spec import CheckpointInfo, ModelSpec
from fcn_deploy.errors import ArtifactError, InputError, UsageError

NUMBERS = st.floats(-1e6, 1e6)
POSITIVE = st.floats(1e-6, 1e6)


def triples(numbers):
    return st.tuples(numbers, numbers, numbers)


NORMALIZATIONS = st.builds(
    Normalization, st.sampled_from(["RGB", "BGR"]), POSITIVE, triples(NUMBERS), triples(POSITIVE), st.booleans()
)
RGB = st.tuples(*[st.integers(0, 255)] * 3)


@st.composite
def specs(draw):
    classes = draw(st.integers(1, 5))
    return ModelSpec(
        variant=draw(st.sampled_from(["fcn8s", "fcn16s", "fcn32s", "custom"])),
        stride=draw(st.sampled_from([1, 8, 16, 32])),
        width=draw(POSITIVE),
        num_classes=classes,
        classes=tuple(draw(st.lists(st.text(), min_size=classes, max_size=classes))),
        palette=tuple(draw(st.lists(RGB, min_size=classes, max_size=classes))),
        ignore_index=draw(st.none() | st.integers(-1, 300)),
        normalization=draw(NORMALIZATIONS),
        geometry=draw(st.sampled_from([Geometry(), Geometry(7), PAPER, Geometry(7, 100, AT_ONCE)])),
        receptive_field=draw(st.none() | st.builds(ReceptiveField, *[st.integers(0, 500)] * 4, st.integers(1, 64))),
        checkpoint=draw(st.none() | st.builds(CheckpointInfo, st.text(), st.text())),
        exporter=draw(st.dictionaries(st.text(), st.text() | st.integers(0, 100))),
    )


def binary_spec(**changes):
    return ModelSpec(
        "net",
        None,
        None,
        2,
        ("background", "foreground"),
        default_palette(2),
        geometry=None,
        model="nets:Net",
        **changes,
    )


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_binary_net_has_two_labels_one_channel_and_a_threshold(threshold):
    spec = binary_spec(threshold=threshold)
    assert (spec.num_classes, spec.channels) == (2, 1)
    assert spec.to_json()["requires"] == ["threshold"]
    assert ModelSpec.loads(spec.dumps()) == spec


def test_a_net_with_a_channel_for_each_class_requires_nothing_new():
    assert binary_spec().channels == 2
    assert not {"threshold", "requires"} & set(binary_spec().to_json())


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
def test_a_threshold_is_finite(threshold):
    with pytest.raises(InputError, match="spec threshold"):
        binary_spec(threshold=threshold)


def test_a_threshold_is_for_two_classes():
    with pytest.raises(InputError, match="2 for a net with a threshold"):
        ModelSpec("net", None, None, 3, tuple("abc"), default_palette(3), model="n:N", geometry=None, threshold=0.0)


def test_an_adopted_net_needs_neither_code_nor_a_published_geometry():
    info = CheckpointInfo("ab" * 32, "onnx")
    spec = ModelSpec("net", None, None, 2, tuple("ab"), default_palette(2), geometry=None, checkpoint=info)
    assert spec.adopted
    assert ModelSpec.loads(spec.dumps()) == spec
    with pytest.raises(InputError, match="spec stride"):
        replace(spec, checkpoint=replace(info, layout="seed"))


def test_a_file_that_requires_what_this_version_does_not_know_is_refused():
    data = {**binary_spec(threshold=0.0).to_json(), "requires": ["threshold", "mirrored"]}
    with pytest.raises(
        ArtifactError, match=r"it requires 'mirrored'; expected 'threshold' and 'min_size'; fix: install"
    ):
        ModelSpec.from_json(data)
    with pytest.raises(ArtifactError, match="would misunderstand the sidecar"):
        check_format({"format": 1, "requires": ["mirrored"]}, "the sidecar")
    with pytest.raises(InputError, match="the sidecar: requires"):
        check_format({"format": 1, "requires": "mirrored"}, "the sidecar")


@pytest.fixture
def spec():
    return ModelSpec(
        variant="fcn8s",
        stride=8,
        width=0.5,
        num_classes=2,
        classes=("sky", "building"),
        palette=((128, 128, 128), (128, 0, 0)),
        ignore_index=11,
        normalization=Normalization("BGR", 1.0, (104.0, 116.7, 122.7), (1.0, 1.0, 1.0)),
        checkpoint=CheckpointInfo("ab" * 32, "seed"),
        exporter={"fcn_deploy": "0.1.0", "torch": "2.13.0", "opset": 18},
    )


# ModelSpec and its JSON


@settings(max_examples=60, deadline=None)
@given(specs())
def test_a_spec_comes_back_from_its_json(spec):
    assert ModelSpec.loads(spec.dumps()) == spec
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_the_json_is_the_contracts(spec):
    assert json.loads(spec.dumps()) == {
        "format": 1,
        "variant": "fcn8s",
        "stride": 8,
        "width": 0.5,
        "num_classes": 2,
        "geometry": {"fc6_kernel": 1, "input_padding": 0},
        "classes": ["sky", "building"],
        "palette": [[128, 128, 128], [128, 0, 0]],
        "ignore_index": 11,
        "normalization": {
            "color": "BGR",
            "scale": 1.0,
            "mean": [104.0, 116.7, 122.7],
            "std": [1.0, 1.0, 1.0],
            "assumed": False,
        },
        "checkpoint": {"sha256": "ab" * 32, "layout": "seed"},
        "exporter": {"fcn_deploy": "0.1.0", "torch": "2.13.0", "opset": 18},
    }
    assert "\n" not in spec.dumps()


def test_a_spec_is_public_and_does_not_change(spec):
    assert fcn_deploy.ModelSpec is ModelSpec
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.stride = 16


def test_what_may_be_missing_has_a_default(spec):
    data = spec.to_json()
    del data["checkpoint"], data["exporter"], data["normalization"]["assumed"]
    found = ModelSpec.from_json(data)
    assert found.checkpoint is None
    assert found.exporter == {}
    assert not found.normalization.assumed


@pytest.mark.parametrize(
    "key",
    ["variant", "stride", "width", "num_classes", "classes", "palette", "ignore_index", "normalization", "geometry"],
)
def test_a_missing_key_is_named(spec, key):
    data = spec.to_json()
    del data[key]
    with pytest.raises(InputError, match=f"the model spec is incomplete; got no key '{key}'") as caught:
        ModelSpec.from_json(data)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("key", ["color", "scale", "mean", "std"])
def test_a_missing_key_of_the_normalisation_is_named(spec, key):
    data = copy.deepcopy(spec.to_json())
    del data["normalization"][key]
    with pytest.raises(InputError, match=f"got no key '{key}'"):
        ModelSpec.from_json(data)


BAD_FIELDS = [
    ("stride", 0),
    ("stride", "eight"),
    ("stride", None),
    ("width", 0),
    ("width", -1),
    ("width", math.nan),
    ("num_classes", 0),
    ("num_classes", 3),
    ("num_classes", []),
    ("num_classes", math.inf),
    ("num_classes", math.nan),
    ("classes", ["sky"]),
    ("classes", ["sky", "building", "car"]),
    ("classes", None),
    ("palette", [[0, 0, 0]]),
    ("palette", [[0, 0, 0], [0, 0, 256]]),
    ("palette", [[0, 0, 0], [0, -1, 0]]),
    ("palette", [[0, 0, 0], [0, 0]]),
    ("palette", [[0, 0, 0], [0, 0, 0, 0]]),
    ("palette", [[0, 0, 0], "red"]),
    ("palette", [[0, 0, 0], [math.inf, 0, 0]]),
    ("palette", 5),
    ("ignore_index", "none"),
    ("ignore_index", math.inf),
    ("normalization", None),
    ("normalization", []),
    ("geometry", None),
    ("geometry", {"fc6_kernel": 0, "input_padding": 0}),
    ("geometry", {"fc6_kernel": 7, "input_padding": -1}),
    ("geometry", {"fc6_kernel": "seven", "input_padding": 0}),
    ("geometry", {"fc6_kernel": 1, "input_padding": 100}),
    ("geometry", {"fc6_kernel": 7, "input_padding": 100, "skip_scales": [0.01]}),
    ("geometry", {"fc6_kernel": 7, "input_padding": 100, "skip_scales": 3}),
    ("checkpoint", {"sha256": "ab"}),
    ("checkpoint", "ab"),
    ("exporter", 5),
    ("receptive_field", {"top": 3}),
    ("receptive_field", {"top": -1, "bottom": 0, "left": 0, "right": 0, "alignment": 1}),
    ("receptive_field", {"top": 1.5, "bottom": 0, "left": 0, "right": 0, "alignment": 1}),
    ("receptive_field", {"top": 1, "bottom": 0, "left": 0, "right": 0, "alignment": 0}),
    ("receptive_field", {"top": 1, "bottom": 0, "left": 0, "right": 0, "alignment": 1, "any_size": "yes"}),
]


@pytest.mark.parametrize(("key", "value"), BAD_FIELDS, ids=[f"{key}={value}" for key, value in BAD_FIELDS])
def test_a_bad_value_is_an_input_error(spec, key, value):
    with pytest.raises(InputError):
        ModelSpec.from_json({**spec.to_json(), key: value})


@pytest.mark.parametrize(("key", "value"), [("classes", "ab"), ("stride", 8.5), ("num_classes", 2.5)])
def test_a_value_of_another_kind_is_not_bent_into_shape(spec, key, value):
    with pytest.raises(InputError):
        ModelSpec.from_json({**spec.to_json(), key: value})


def test_class_names_that_do_not_match_say_so(spec):
    with pytest.raises(InputError, match=r"class names does not match the net; got 1 names; expected 2.*one name"):
        dataclasses.replace(spec, classes=("sky",))


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5, [1]])
def test_an_unknown_format_is_refused_and_told(spec, version):
    with pytest.raises(InputError, match=r'spec has an unknown format; got "format": .*; expected "format": 1'):
        ModelSpec.from_json({**spec.to_json(), "format": version})


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(InputError, match="the model spec is not a JSON object"):
        ModelSpec.from_json(data)
    with pytest.raises(InputError, match=f"thing is not a JSON object; got {type(data).__name__}"):
        check_format(data, "thing")


@pytest.mark.parametrize("text", ["", "nonsense", "{", "\x00"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(InputError, match="the model spec is not JSON"):
        ModelSpec.loads(text)


def test_json_nested_too_deep_is_refused():
    with pytest.raises(InputError):
        ModelSpec.loads("[" * 200_000)


# Normalization


@settings(max_examples=50, deadline=None)
@given(NORMALIZATIONS, st.integers(0, 255))
def test_the_affine_form_is_the_formula(normalization, value):
    scale, shift = normalization.affine()
    for channel in range(3):
        mean, std = normalization.mean[channel], normalization.std[channel]
        wanted = (value * normalization.scale - mean) / std
        assert value * scale[channel] + shift[channel] == pytest.approx(
            wanted, rel=1e-6, abs=1e-6 * (1 + abs(mean) / std)
        )


def test_torchvisions_statistics_are_the_default():
    assert Normalization() == TORCHVISION
    assert (TORCHVISION.color, TORCHVISION.scale) == ("RGB", 1 / 255)
    assert (TORCHVISION.mean, TORCHVISION.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert not TORCHVISION.assumed


@pytest.mark.parametrize(
    "bad",
    [
        {"color": "rgb"},
        {"color": None},
        {"scale": 0},
        {"scale": -1},
        {"scale": math.inf},
        {"scale": math.nan},
        {"mean": (0, 0, math.nan)},
        {"mean": (math.inf, 0, 0)},
        {"std": (1, 0, 1)},
        {"std": (1, -1, 1)},
        {"std": (1, 1, math.inf)},
    ],
    ids=str,
)
def test_a_normalisation_that_cannot_be_is_refused(bad):
    with pytest.raises(InputError, match="normalization"):
        dataclasses.replace(TORCHVISION, **bad)


@pytest.mark.parametrize("mean", [[1, 2], [1, 2, 3, 4], 5, None, ["a", 1, 2], "abc"])
def test_three_numbers_are_three_numbers(mean):
    data = {"color": "RGB", "scale": 1, "mean": mean, "std": [1, 1, 1]}
    with pytest.raises(InputError, match=r"normalization mean; got .*; expected three numbers"):
        Normalization.from_json(data)


# Palette


def test_the_palette_is_that_of_pascal_voc():
    assert default_palette(21)[:8] == (
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
        (0, 128, 128),
        (128, 128, 128),
    )
    assert default_palette(21)[8:] == (
        (64, 0, 0),
        (192, 0, 0),
        (64, 128, 0),
        (192, 128, 0),
        (64, 0, 128),
        (192, 0, 128),
        (64, 128, 128),
        (192, 128, 128),
        (0, 64, 0),
        (128, 64, 0),
        (0, 192, 0),
        (128, 192, 0),
        (0, 64, 128),
    )


def test_no_two_classes_share_a_colour():
    palette = default_palette(300)
    assert len(set(palette)) == 300
    assert np.array(palette).max() <= 255
    assert default_palette(0) == ()


# TensorSpec and ImageShape


def test_a_tensor_is_written_as_errors_show_it():
    assert str(TensorSpec("image", "uint8", ("batch", 480, 640, 3))) == "image: uint8 [batch, 480, 640, 3]"


@pytest.mark.parametrize(
    ("text", "shape"), [("4x512x1024", (4, 512, 1024)), ("360x480", (1, 360, 480)), ("1x1", (1, 1, 1))]
)
def test_a_shape_is_read_with_or_without_a_batch(text, shape):
    assert ImageShape.parse(text) == ImageShape(*shape)


@settings(max_examples=30, deadline=None)
@given(st.builds(ImageShape, *[st.integers(1, 10**6)] * 3))
def test_a_shape_comes_back_from_its_text(shape):
    assert ImageShape.parse(str(shape)) == shape


@pytest.mark.parametrize(
    "text",
    ["", "512", "x512", "512x", "0x512", "512x0", "0x1x1", "-1x5", "1x3x512x512", "512X512", "5.0x5", "5 x5", "5x5\n"],
)
def test_a_text_that_is_no_shape_is_a_usage_error(text):
    with pytest.raises(UsageError, match=r"bad shape; got .*; expected NxHxW or HxW") as caught:
        ImageShape.parse(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_a_shape_has_no_empty_side(shape):
    with pytest.raises(InputError, match=r"shape; got .*each at least 1"):
        ImageShape(*shape)


# A net of the user's own


OWN = {"stride": None, "width": None, "geometry": None, "model": "nets:UNet"}


@pytest.mark.parametrize("padding", [None, Padding(8), Padding(32, "reflect")])
def test_the_spec_of_a_net_of_ones_own_survives_the_trip(spec, padding):
    own = replace(spec, variant="UNet", padding=padding, **OWN)
    assert ModelSpec.loads(own.dumps()) == own


@pytest.mark.parametrize("key", ["stride", "width", "geometry"])
def test_a_published_net_says_what_it_is(spec, key):
    with pytest.raises(InputError, match=key):
        replace(spec, **{key: None})


def test_a_published_net_is_not_padded(spec):
    with pytest.raises(InputError, match="padding"):
        replace(spec, padding=Padding(8))


@pytest.mark.parametrize(("divisor", "mode"), [(1, "edge"), (0, "edge"), (2.5, "edge"), (True, "edge"), (8, "wrap")])
def test_a_padding_that_makes_no_sense_is_refused(divisor, mode):
    with pytest.raises(InputError, match="padding"):
        Padding(divisor, mode)


@given(st.integers(1, 10_000), st.integers(2, 512))
def test_a_padded_size_is_the_next_multiple(size, divisor):
    padded = Padding(divisor).padded(size)
    assert padded % divisor == 0
    assert size <= padded < size + divisor
