import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

import train
from fcn_deploy.artifacts.normalization import CAFFE, TORCHVISION
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.demo import CLASSES, PALETTE, make_scene
from fcn_deploy.graph.model import exported_spec, parse
from fcn_deploy.models import read_checkpoint
from fcn_deploy.models.vgg import TRUNK
from fcn_deploy.progress import Silent
from fcn_deploy.workflows.exporting import export
from labelled import Crops, Labelled
from training import rarity_weights, save_net

WIDTH = 0.0625
SIZES = ((64, 96), (40, 50), (96, 70))  # the second is smaller than the crops
UNLABELLED = "scene_08"


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Fifteen scenes of several sizes: some labelled by index, some by colour, one not at all."""
    folder = tmp_path_factory.mktemp("data")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    colors = np.array([*PALETTE, *[(0, 0, 0)] * (256 - len(PALETTE))], np.uint8)
    for seed in range(15):
        scene = make_scene(seed, SIZES[seed % 3])
        name = f"scene_{seed:02}"
        labels = np.full_like(scene.labels, 255) if name == UNLABELLED else scene.labels
        Image.fromarray(scene.image).save(folder / "images" / f"{name}.png")
        Image.fromarray(colors[labels] if seed % 2 else labels).save(folder / "labels" / f"{name}.png")
    lines = (f"{name},{r},{g},{b}" for name, (r, g, b) in zip(CLASSES, PALETTE, strict=True))
    (folder / "classes.csv").write_text("\n".join(lines))
    return folder


def run(data, output, *arguments):
    """Calls the script; a later option overrides an earlier one."""
    given = {"--images": data / "images", "--labels": data / "labels", "--class-names": data / "classes.csv"}
    given |= {"--crop": "64x64", "--batch": 2, "--dropout": 0.1, "--threads": 1, "-o": output}
    words = [str(word) for pair in given.items() for word in pair]
    return CliRunner().invoke(train.main, [*words, *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def coarse(data, tmp_path_factory):
    """An FCN-32s trained from scratch, and what the script said."""
    output = tmp_path_factory.mktemp("coarse") / "net.safetensors"
    arguments = ("--variant", "fcn32s", "--width", WIDTH, "--lr", 3e-3, "--steps", 40, "--every", 20)
    result = run(data, output, *arguments)
    assert result.exit_code == 0, result.output
    return output, result


def test_a_net_learns(coarse):
    output, result = coarse
    first, second = (float(loss) for loss in re.findall(r"loss ([\d.]+)", result.stderr))
    assert second < first
    # One class everywhere has a mIoU of less than 4.
    assert max(float(miou) for miou in re.findall(r"step .*mIoU ([\d.]+)", result.stderr)) > 8
    assert result.stdout.splitlines()[-1].startswith(f"{output}: mIoU ")
    assert all(name in result.stdout for name in CLASSES)


def test_the_net_says_what_it_is_and_is_exported_without_a_flag_or_a_warning(coarse, tmp_path, caplog):
    # Of one shape, which is exported in a third of the time; what the spec says does not depend on it.
    export(coarse[0], shape="33x64", output=tmp_path / "net.onnx")
    assert [record for record in caplog.records if record.name.startswith("fcn_deploy")] == []
    model = tmp_path / "net.onnx"
    spec = exported_spec(parse(model.read_bytes(), str(model)), str(model))
    assert (spec.variant, spec.stride, spec.width) == ("fcn32s", 32, WIDTH)
    assert (spec.classes, spec.palette, spec.ignore_index) == (CLASSES, PALETTE, 255)
    assert spec.normalization == TORCHVISION


@pytest.mark.parametrize(("frozen", "moves"), [(4, False), (2, True)])
def test_a_finer_net_starts_from_a_coarser_one_with_its_trunk_frozen(data, coarse, tmp_path, frozen, moves):
    output = tmp_path / "finer.safetensors"
    arguments = ("--variant", "fcn16s", "--weights", coarse[0], "--steps", 4, "--frozen-steps", frozen, "--batch", 1)
    result = run(data, output, *arguments)
    assert result.exit_code == 0, result.output
    assert (
        "copied: fc6, fc7, score_fr, the trunk; fresh: score_pool4_fr, upscore16, upscore2; "
        f"trunk frozen for {frozen} of 4 steps" in result.stderr
    )
    before, after = load_file(coarse[0]), load_file(output)
    for layer in TRUNK:
        assert torch.equal(before[f"{layer}.0.weight"], after[f"{layer}.0.weight"]) is not moves
    assert not torch.equal(before["score_fr.weight"], after["score_fr.weight"])
    assert read_checkpoint(output).spec.variant == "fcn16s"


def test_a_net_of_your_own_learns_and_goes_on_from_its_weights(data, tmp_path):
    output, more = tmp_path / "net.safetensors", tmp_path / "more.safetensors"
    own = ("--model", "tests.support.hard_nets:FastScnn", "--dropout", 0.2, "--lr", 3e-3)
    result = run(data, output, *own, "--steps", 30, "--every", 15, "--batch", 4)
    assert result.exit_code == 0, result.output
    first, second = (float(loss) for loss in re.findall(r"loss ([\d.]+)", result.stderr))
    assert second < first
    assert run(data, more, *own, "--steps", 1, "--copied-lr", 0, "--weights", output).exit_code == 0
    before, after = load_file(output), load_file(more)
    assert torch.equal(before["low.0.weight"], after["low.0.weight"])
    spec = export(output, model=own[1], shape="33x64").spec
    assert (spec.variant, spec.classes, spec.palette, spec.normalization) == ("FastScnn", CLASSES, PALETTE, TORCHVISION)


def test_the_seed_decides(data, tmp_path):
    def weights(seed, workers):
        output = tmp_path / f"{seed}_{workers}.safetensors"
        result = run(data, output, "--width", WIDTH, "--steps", 2, "--seed", seed, "--workers", workers)
        assert result.exit_code == 0, result.output
        return output.read_bytes()

    assert weights(1, workers=0) == weights(1, workers=1) != weights(2, workers=0)


def test_interrupting_leaves_the_best_net_so_far(data, tmp_path, monkeypatch):
    evaluations = iter([train.evaluate])

    def evaluate(*arguments):
        for function in evaluations:
            return function(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "evaluate", evaluate)
    output = tmp_path / "net.safetensors"
    result = run(data, output, "--width", WIDTH, "--steps", 2, "--every", 1)
    assert result.exit_code == 130
    assert f"interrupted; {output}" in result.stderr
    assert read_checkpoint(output).spec.classes == CLASSES
    assert list(tmp_path.iterdir()) == [output]


def test_interrupting_before_the_first_evaluation_says_that_nothing_was_written(data, tmp_path, monkeypatch):
    def evaluate(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "evaluate", evaluate)
    result = run(data, tmp_path / "net.safetensors", "--width", WIDTH, "--steps", 1)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted; nothing was written"
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_says_its_normalisation_keeps_it(data, coarse, tmp_path, caplog):
    caffe = ModelSpec("fcn32s", 32, WIDTH, len(CLASSES), CLASSES, PALETTE, normalization=CAFFE)
    model = train.Start.make("fcn32s", len(CLASSES), None, None, None, coarse[0]).model
    save_net(model, caffe, tmp_path / "caffe.safetensors")
    assert train.Start.make("fcn8s", 3, None, None, None, tmp_path / "caffe.safetensors").normalization == CAFFE
    assert not caplog.records
    torch.save(model.state_dict(), tmp_path / "silent.pth")
    assert train.Start.make("fcn8s", 3, None, None, None, tmp_path / "silent.pth").normalization == TORCHVISION
    assert "does not say how its images were normalised" in caplog.text


def test_a_class_that_no_label_shows_is_warned_of(data, tmp_path, caplog):
    (tmp_path / "classes.csv").write_text((data / "classes.csv").read_text() + "\nunicorn,1,2,3\n")
    output = tmp_path / "net.safetensors"
    result = run(data, output, "--width", WIDTH, "--steps", 1, "--class-names", tmp_path / "classes.csv")
    assert result.exit_code == 0, result.output
    assert "no pixel of the training images is of: unicorn" in caplog.text
    assert torch.isfinite(load_file(output)["score_fr.weight"]).all()


def _too_few_classes(data, folder):
    (folder / "classes.csv").write_text("\n".join(CLASSES[:-1]))
    (folder / "labels").mkdir()
    for seed in range(15):
        labels = make_scene(seed, SIZES[seed % 3]).labels
        Image.fromarray(labels).save(folder / "labels" / f"scene_{seed:02}.png")
    return "--class-names", folder / "classes.csv", "--labels", folder / "labels"


def _no_class(data, folder):
    (folder / "classes.csv").write_text("\n\n")
    return "--class-names", folder / "classes.csv"


def _other_names(data, folder):
    Image.new("L", (8, 8)).save(folder / "other.png")
    return "--labels", folder


def _other_size(data, folder):
    for path in (data / "labels").iterdir():
        Image.new("L", (8, 8)).save(folder / path.name)
    return "--labels", folder


def _nothing_labelled(data, folder):
    for seed in range(15):
        height, width = SIZES[seed % 3]
        Image.new("L", (width, height), 255).save(folder / f"scene_{seed:02}.png")
    return "--labels", folder


def _few_images(data, folder):
    Image.new("RGB", (8, 8)).save(folder / "only.png")
    return "--images", folder


def _the_same_images(data, folder):
    return "--val-images", data / "images", "--val-labels", data / "labels"


def _damaged_weights(data, folder):
    (folder / "start.pth").write_bytes(b"PK")
    return "--weights", folder / "start.pth"


def _missing_folder(data, folder):
    return "-o", folder / "nowhere" / "net.safetensors"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (_too_few_classes, 6, r"holds values that are no class; got \[7\]; expected 0..6"),
        (_no_class, 6, "names no class"),
        (_other_names, 6, "lacks labels; got none for scene_00.png"),
        (_other_size, 6, "does not fit its image; got 8x8; expected 64x96"),
        (_nothing_labelled, 6, "nothing is labelled"),
        (_few_images, 6, "too few images to hold one out; got 1"),
        (_the_same_images, 6, "held-out images are also trained on; got scene_00.png and 14 more"),
        (_damaged_weights, 6, "start.pth is no checkpoint"),
        (_missing_folder, 6, "no folder"),
        (("-o", "net.pth"), 2, "suffix does not fit"),
        (("--val-images", "somewhere"), 2, "held-out images go with their labels"),
        (("--frozen-steps", 2), 2, "random weights would be frozen"),
        (("--frozen-steps", 9999), 2, "bad number of frozen steps"),
        (("--vgg16", "a.pth", "--weights", "b.pth"), 2, "two files to start from"),
        (
            ("--model", "tests.support.hard_nets:UNet"),
            2,
            "options of an FCN for a net of your own; got --model with --width",
        ),
        (
            ("--model", "tests.support.hard_nets:UNet", "--frozen-steps", 0),
            2,
            "options of an FCN for a net of your own; got --model with --width, --frozen-steps",
        ),
        (("--device", "abacus"), 7, "no device 'abacus'"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_anything_is_written(data, tmp_path, arguments, code, message):
    scratch, output = tmp_path / "scratch", tmp_path / "net.safetensors"
    scratch.mkdir()
    extra = arguments(data, scratch) if callable(arguments) else arguments
    result = run(data, output, "--width", WIDTH, *extra)
    assert result.exit_code == code, result.output
    assert re.search(message, result.stderr)
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert not output.exists()


def test_a_net_that_there_is_not_is_an_error_that_names_the_option(data, tmp_path):
    result = run(data, tmp_path / "net.safetensors", "--model", "tests.support.hard_nets:Nope")
    assert result.exit_code == 6
    assert "has no Nope, which --model names" in result.stderr


@pytest.mark.parametrize(
    ("model", "got"),
    [
        ("Fixed", "RuntimeError: .* for an image"),
        ("Heads", "a tuple for an image"),
        ("Coarse", r"a tensor \[1, \d+, 16, 24\] for an image"),
    ],
)
def test_a_net_without_a_score_for_each_class_and_pixel_is_refused(data, tmp_path, model, got):
    result = run(data, tmp_path / "net.safetensors", "--model", f"tests.support.custom_nets:{model}")
    assert result.exit_code == 6
    assert re.search(f"does not give a score for each class and pixel; got .*{got}", result.stderr)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_not_replaced(data, tmp_path):
    result = run(data, tmp_path / "net.safetensors", "--width", WIDTH, "--device", "cuda")
    assert result.exit_code == 7
    assert "there is no device 'cuda'" in result.stderr


def test_the_output_is_no_input(data, coarse):
    before = coarse[0].read_bytes()
    assert run(data, coarse[0], "--weights", coarse[0]).exit_code == 2
    assert coarse[0].read_bytes() == before


def test_crops_are_windows_of_their_image_or_all_of_it_and_unlabelled_edge(data):
    paths = [sorted((data / kind).iterdir())[:2] for kind in ("images", "labels")]
    source = Labelled(tuple(paths[0]), tuple(paths[1]), PALETTE, 255)
    crops = Crops(source, 40, (60, 60), TORCHVISION, seed=3)
    assert len(crops) == 40
    shown = []
    for place in range(40):
        image, truth = crops[place]
        assert image.dtype == np.float32
        assert truth.dtype == np.int64
        assert (image.shape, truth.shape) == ((3, 60, 60), (60, 60))
        shown.append((truth[40:] == 255).all())
    assert sum(shown) == 20  # each of the two once an epoch, the small one 40 rows high
    small, truth = next(crops[place] for place in range(40) if shown[place])
    assert np.array_equal(small[:, 39], small[:, 59])
    assert (truth[:40] != 255).any()
    assert np.array_equal(crops[7][0], crops[7][0])


def test_pixels_are_counted_without_the_ignored(data):
    labels = sorted((data / "labels").iterdir())
    images = sorted((data / "images").iterdir())
    counts = Labelled(tuple(images), tuple(labels), PALETTE, 255).count_pixels("counting", Silent())
    scenes = [make_scene(seed, SIZES[seed % 3]).labels for seed in range(15) if f"scene_{seed:02}" != UNLABELLED]
    expected = sum(np.bincount(labels.ravel(), minlength=256)[: len(CLASSES)] for labels in scenes)
    assert counts.tolist() == expected.tolist()


def test_weights_rise_with_rarity_and_absent_classes_do_not_move_them():
    weights = rarity_weights(np.array([0.64, 0.32, 0.04, 0.0]))
    assert weights[:3].tolist() == pytest.approx([0.5**0.5, 1.0, 8**0.5])
