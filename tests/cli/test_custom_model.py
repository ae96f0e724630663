import json

import pytest
import torch
from PIL import Image

from fcn_deploy.cli.app import run
from tests.support import custom_nets


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    path = tmp_path_factory.mktemp("unet") / "unet.pth"
    torch.save(custom_nets.trained(custom_nets.UNet()).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def exported_unet(unet):
    output = unet.with_suffix(".onnx")
    model = ["--model", "tests.support.custom_nets:UNet", "--size-divisor", "8"]
    assert run(["export", "--weights", str(unet), *model, "-o", str(output)]) == 0
    return output


def test_a_custom_net_is_exported_inspected_verified_and_predicted_with(
    call, unet, exported_unet, photo_folder, tmp_path
):
    model = ["--model", "tests.support.custom_nets:UNet"]
    spec = json.loads(call("inspect", exported_unet, "--json").out)["spec"]
    assert (spec["variant"], spec["padding"]) == ("UNet", {"divisor": 8, "mode": "edge"})
    call("verify", exported_unet, "--weights", unet, *model, "--data", photo_folder)
    call("benchmark", exported_unet, "--vs", f"pytorch:{unet}", *model, "--shape", "17x23", "--duration", 0)
    divisor = ["--size-divisor", 8]
    call("predict", f"pytorch:{unet}", photo_folder / "photo_00.png", *model, *divisor, "-o", tmp_path / "pictures")
    assert (tmp_path / "pictures" / "photo_00.labels.png").is_file()


def test_a_reference_needs_the_code_that_makes_it(call, unet, exported_unet, photo_folder):
    said = call("verify", exported_unet, "--weights", unet, "--data", photo_folder, code=2)
    assert "fix: add --model tests.support.custom_nets:UNet" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--model", "tests.support.custom_nets:UNet"], 6, "add --size-divisor 8"),
        (["--model", "tests.support.custom_nets:UNet", "--pad-mode", "zero"], 2, "--size-divisor with it"),
        (
            ["--model", "tests.support.custom_nets:UNet", "--size-divisor", "8", "--variant", "fcn8s"],
            2,
            "--variant and --model",
        ),
        (["--size-divisor", "8"], 2, "the published nets work at every size"),
        (["--model", "custom_nets"], 2, "package.module:callable"),
        (["--model", "no_such_module:make"], 6, "no module called no_such_module"),
        ([], 6, "--model package.module:callable"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(call, unet, tmp_path, arguments, code, why):
    said = call("export", "--weights", unet, *arguments, "-o", tmp_path / "net.onnx", code=code)
    assert why in said.err.splitlines()[-1]
    assert not (tmp_path / "net.onnx").exists()


def test_an_option_for_checkpoints_without_one_is_refused(call, exported_unet, photo_folder, tmp_path):
    said = call(
        "predict",
        exported_unet,
        photo_folder,
        "--model",
        "tests.support.custom_nets:UNet",
        "-o",
        tmp_path / "p",
        code=2,
    )
    assert "no pytorch:CHECKPOINT" in said.err


def test_a_net_exported_for_one_size_is_verified_at_that_size(call, tmp_path):
    weights, model, images = tmp_path / "fixed.pth", tmp_path / "fixed.onnx", tmp_path / "images"
    torch.save(custom_nets.trained(custom_nets.Fixed()).state_dict(), weights)
    images.mkdir()
    Image.new("RGB", (32, 32), (90, 120, 60)).save(images / "a.png")
    made = ("--weights", weights, "--model", "tests.support.custom_nets:Fixed")
    call("export", *made, "--shape", "1x32x32", "-o", model)
    call("verify", model, *made, "--data", images)


def test_a_padding_that_nothing_takes_is_refused(call, unet, exported_unet, photo_folder, tmp_path):
    divisor = ("--size-divisor", 32)
    said = call("predict", exported_unet, photo_folder, *divisor, "-o", tmp_path / "p", code=2)
    assert "the published nets work at every size; got --size-divisor" in said.err
    other = ("--weights", unet, "--model", "tests.support.custom_nets:UNet", *divisor)
    assert "padded in another way" in call("verify", exported_unet, *other, "--data", photo_folder, code=2).err
