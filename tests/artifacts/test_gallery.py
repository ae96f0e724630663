import json
from dataclasses import replace

import pytest

from fcn_deploy.artifacts.gallery import Gallery, ShownImage
from fcn_deploy.errors import InputError
from fcn_deploy.files import dumps_json

SHOWN = ShownImage("a.png", 0.98, (30, 40), {"image": "00_image.jpg", "difference": "00_difference.png"})
GALLERY = Gallery("fcn8s.int8.onnx", (SHOWN, replace(SHOWN, agreement=0.99, pictures={})))


def written():
    return json.loads(dumps_json(GALLERY.to_json()))


def test_a_gallery_comes_back():
    assert Gallery.from_json(written()) == GALLERY


@pytest.mark.parametrize(
    "file",
    [
        "../../secret.png",
        "/etc/passwd",
        "00_image.svg",
        "00_image.png/..",
        "0_image.png",
        "00_truth.png",
        "",
        "00_image.png\n",
    ],
)
def test_a_picture_cannot_lead_out_of_its_folder(file):
    data = written()
    data["images"][0]["pictures"] = {"image": file}
    with pytest.raises(InputError, match="gallery picture"):
        Gallery.from_json(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3),
        ("agreement", 1.5),
        ("agreement", None),
        ("agreement", "1"),
        ("shape", [3]),
        ("shape", "3x4"),
        ("shape", [3, None]),
        ("pictures", []),
        ("pictures", {"image": 3}),
        ("pictures", {"other": "00_image.jpg"}),
    ],
)
def test_a_bad_value_of_an_image_is_an_input_error(key, value):
    data = written()
    data["images"][0][key] = value
    with pytest.raises(InputError):
        Gallery.from_json(data)


@pytest.mark.parametrize(("key", "value"), [("engine", None), ("images", {}), ("images", "ab")])
def test_a_bad_gallery_is_an_input_error(key, value):
    with pytest.raises(InputError):
        Gallery.from_json({**written(), key: value})
