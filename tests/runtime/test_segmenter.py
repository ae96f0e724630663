import inspect
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields

import numpy as np
import onnxruntime
import pytest

import fcn_deploy
from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.sidecar import load_sidecar, sidecar_path
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.errors import (
    ArtifactError,
    ClosedError,
    DependencyError,
    FcnDeployError,
    InputError,
    UsageError,
    WrongIoError,
)
from fcn_deploy.evaluation.parity import relative_error
from fcn_deploy.runtime import RuntimeOptions, Segmenter
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from tests.support.building import build


@pytest.fixture(scope="module")
def image_segmenter(engine):
    with Segmenter(engine("image"), threads=1) as segmenter:
        yield segmenter


@pytest.fixture(scope="module")
def tensor_segmenter(engine):
    with Segmenter(engine("tensor"), threads=1) as segmenter:
        yield segmenter


@pytest.fixture(params=["image", "tensor"])
def segmenter(request, image_segmenter, tensor_segmenter):
    return image_segmenter if request.param == "image" else tensor_segmenter


def written(model, path, io):
    build(model, BuildConfig(io=io)).save(path)
    return path


def edit_sidecar(engine, change):
    path = sidecar_path(engine)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# What a segmenter gives


def test_the_segmenter_of_the_package_is_that_of_the_runtime():
    assert fcn_deploy.Segmenter is Segmenter


def test_a_segmenter_says_what_its_engine_is(image_segmenter, tensor_segmenter, engine):
    assert (image_segmenter.io, tensor_segmenter.io) == ("image", "tensor")
    assert image_segmenter.backend == tensor_segmenter.backend == "onnxruntime"
    assert image_segmenter.spec == tensor_segmenter.spec == load_sidecar(engine("image")).spec
    assert image_segmenter.spec.variant == "fcn8s"
    assert image_segmenter.fixed_batch is None


def test_an_image_engine_and_a_tensor_engine_agree(image_segmenter, tensor_segmenter, photos):
    for photo in photos:
        assert np.mean(image_segmenter(photo) == tensor_segmenter(photo)) > 0.999


def test_labels_are_where_the_logits_are_largest(tensor_segmenter, photos):
    np.testing.assert_array_equal(tensor_segmenter(photos[0]), tensor_segmenter.logits(photos[0]).argmax(0))


def test_logits_are_those_of_pytorch(tensor_segmenter, photos, request):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from fcn_deploy.models import load_model, read_checkpoint
    from fcn_deploy.models.backend import TorchBackend

    checkpoint = read_checkpoint(request.getfixturevalue("checkpoint_file")("fcn8s"))
    torch_backend = TorchBackend(load_model(checkpoint), checkpoint.num_classes)
    with Segmenter(torch_backend, spec=tensor_segmenter.spec) as reference:
        for photo in photos[:3]:
            assert relative_error(reference.logits(photo), tensor_segmenter.logits(photo)) < 1e-4


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 2), (33, 64), (65, 97)])
def test_labels_have_the_size_of_the_image(segmenter, size):
    labels = segmenter(np.full((*size, 3), 77, np.uint8))
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert labels.max() < segmenter.spec.num_classes


def test_a_batch_gives_a_batch_of_labels(segmenter, photos):
    batch = np.stack([photos[0], photos[0][::-1], photos[0][:, ::-1]])
    labels = segmenter(batch)
    assert labels.shape == batch.shape[:3]
    np.testing.assert_array_equal(labels, np.stack([segmenter(image) for image in batch]))


def test_a_batch_of_one_stays_a_batch(segmenter, photos):
    np.testing.assert_array_equal(segmenter(photos[0][np.newaxis]), segmenter(photos[0])[np.newaxis])


def test_logits_have_the_shape_of_the_image_and_a_channel_for_each_class(tensor_segmenter, photos):
    height, width, _ = photos[0].shape
    logits = tensor_segmenter.logits(photos[0])
    assert logits.dtype == np.float32
    assert logits.shape == (tensor_segmenter.spec.num_classes, height, width)
    assert tensor_segmenter.logits(photos[0][np.newaxis]).shape == (1, *logits.shape)


def test_a_later_call_does_not_change_earlier_results(segmenter, photos):
    first = segmenter(photos[0])
    before = first.copy()
    segmenter(255 - photos[0])
    np.testing.assert_array_equal(first, before)
    first[:] = 0


def test_the_image_is_not_changed(segmenter, photos):
    image = photos[0].copy()
    segmenter(image)
    np.testing.assert_array_equal(image, photos[0])


def test_views_give_what_copies_give(segmenter, photos):
    photo = photos[0]
    read_only = photo.copy()
    read_only.flags.writeable = False
    views = {
        "strided": photo[::2, ::3],
        "mirrored": photo[::-1, ::-1],
        "channels swapped": photo[..., ::-1],
        "transposed": photo.swapaxes(0, 1),
        "fortran": np.asfortranarray(photo),
        "batch of windows": np.lib.stride_tricks.sliding_window_view(photo, (32, 32), (0, 1))[::4, 0].transpose(
            0, 2, 3, 1
        ),
        "read-only": read_only,
    }
    for name, view in views.items():
        np.testing.assert_array_equal(segmenter(view), segmenter(np.ascontiguousarray(view)), err_msg=name)


def test_calls_from_several_threads_give_what_one_thread_gives(segmenter, photos):
    expected = [segmenter(photo) for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for labels, wanted in zip(pool.map(segmenter, photos), expected, strict=True):
                np.testing.assert_array_equal(labels, wanted)


@pytest.mark.parametrize("io", ["image", "tensor"])
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_images_are_normalised_in_the_nets_channel_order(tiny_net, make_spec, tmp_path, photos, color, io):
    # The net's logits are its own channels, shifted so that every channel wins somewhere.
    normalization = Normalization(color, 0.5, (50.0, 61.0, 72.0), (1.0, 1.5, 2.0))
    model = tiny_net(np.eye(3), spec=make_spec(3, normalization))
    channels = photos[0] if color == "RGB" else photos[0][..., ::-1]
    wanted = (channels * 0.5 - [50.0, 61.0, 72.0]) / [1.0, 1.5, 2.0]
    with Segmenter(written(model, tmp_path / "engine.onnx", io)) as segmenter:
        assert segmenter.io == io
        np.testing.assert_array_equal(segmenter(photos[0]), wanted.argmax(-1))
        if io == "tensor":
            np.testing.assert_allclose(segmenter.logits(photos[0]), wanted.transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize("io", ["image", "tensor"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_frames_in_bgr_give_what_the_same_images_in_rgb_give(engine, photos, io, tile):
    batch = np.stack([photos[0], photos[0][::-1]])
    with (
        Segmenter(engine(io), threads=1) as rgb,
        Segmenter(engine(io), threads=1, tile=tile, color="bgr") as bgr,
    ):
        for images in (photos[0], batch):
            frame = images[..., ::-1]
            np.testing.assert_array_equal(bgr(frame), rgb(images))
            if io == "tensor" and tile is None:
                np.testing.assert_array_equal(bgr.logits(frame), rgb.logits(images))
        assert (bgr(photos[0]) != rgb(photos[0])).any()


def test_the_keywords_of_a_segmenter_are_the_runtime_options_and_the_spec():
    parameters = inspect.signature(Segmenter).parameters
    keywords = {name: each.default for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}
    assert keywords == {**{field.name: field.default for field in fields(RuntimeOptions)}, "spec": None}


@pytest.mark.parametrize("io", ["image", "tensor"])
@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (257, np.int32), (300, np.int32)])
def test_more_than_256_classes_are_int32(tiny_net, make_spec, tmp_path, io, classes, dtype):
    # Class k scores 2 * k * red - k * k, which is largest for k nearest to red; red is 0..255, so scale it up.
    index = np.arange(classes)
    weights = np.stack([2.0 * index * classes, -(index**2.0), 0 * index], axis=1)
    normalization = Normalization("RGB", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    model = tiny_net(weights, spec=make_spec(classes, normalization))
    image = np.zeros((1, 256, 3), np.uint8)
    image[0, :, 0] = np.arange(256)
    image[..., 1] = 255
    with Segmenter(written(model, tmp_path / "engine.onnx", io)) as segmenter:
        labels = segmenter(image)
    assert labels.dtype == dtype
    assert labels[0, 0] == 0
    assert labels[0, -1] == classes - 1
    np.testing.assert_allclose(labels[0], np.arange(256) / 255 * classes, atol=1)


# What a segmenter refuses


@pytest.mark.parametrize(
    "image",
    [
        [[[0, 0, 0]]],
        [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 5, 3), np.uint8)],
        "photo.png",
        None,
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 3), bool),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((2, 2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.array(3, np.uint8),
    ],
    ids=lambda image: f"{image.dtype}{list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__,
)
def test_anything_but_an_image_is_refused(segmenter, image):
    with pytest.raises(InputError, match=r"not an image; got .*expected .*uint8 \[H, W, 3\]") as caught:
        segmenter(image)
    assert caught.value.exit_code == 6
    if segmenter.io == "tensor":
        with pytest.raises(InputError, match="not an image"):
            segmenter.logits(image)


def test_logits_of_an_image_engine_are_a_type_error(image_segmenter, photos):
    with pytest.raises(WrongIoError, match=r"gives labels, not logits.*`io=\"tensor\"`") as caught:
        image_segmenter.logits(photos[0])
    assert isinstance(caught.value, TypeError)
    assert caught.value.exit_code == 2


def test_a_fixed_engine_refuses_another_size(tiny_net, make_spec, tmp_path):
    model = tiny_net(np.eye(3), spec=make_spec(3), shape=(2, 3, 8, 12))
    for io in ("image", "tensor"):
        with Segmenter(written(model, tmp_path / f"{io}.onnx", io)) as segmenter:
            assert segmenter.fixed_batch == 2
            assert segmenter(np.zeros((2, 8, 12, 3), np.uint8)).shape == (2, 8, 12)
            for shape in ((8, 12, 3), (2, 9, 12, 3), (3, 8, 12, 3)):
                with pytest.raises(InputError, match=r"input image has the wrong shape; got .*expected image"):
                    segmenter(np.zeros(shape, np.uint8))


# Closing


@pytest.mark.parametrize("io", ["image", "tensor"])
def test_every_call_after_close_raises(engine, photos, io):
    segmenter = Segmenter(engine(io), threads=1)
    segmenter(photos[0])
    segmenter.close()
    segmenter.close()
    calls = {
        "label": lambda: segmenter(photos[0]),
        "label a batch": lambda: segmenter(photos[0][np.newaxis]),
        "fixed_batch": lambda: segmenter.fixed_batch,
    }
    if io == "tensor":
        calls["logits"] = lambda: segmenter.logits(photos[0])
    for call in calls.values():
        with pytest.raises(ClosedError, match=r"closed.*open the engine again") as caught:
            call()
        assert isinstance(caught.value, RuntimeError)


def test_logits_of_a_closed_image_engine_raise_that_it_is_closed(engine, photos):
    segmenter = Segmenter(engine("image"), threads=1)
    segmenter.close()
    with pytest.raises(ClosedError):
        segmenter.logits(photos[0])


def test_leaving_the_block_closes_it_and_its_backend(exported, photos):
    backend = OnnxRuntimeBackend(exported("fcn8s"), threads=1)
    with Segmenter(backend) as segmenter:
        segmenter(photos[0])
    with pytest.raises(ClosedError):
        segmenter(photos[0])
    with pytest.raises(ClosedError):
        backend.infer({"image": np.zeros((1, 3, 4, 4), np.float32)})


def test_an_error_inside_the_block_closes_it_and_is_raised(engine, photos):
    with pytest.raises(KeyError, match="mine"), Segmenter(engine("image")) as segmenter:
        raise KeyError("mine")
    with pytest.raises(ClosedError):
        segmenter(photos[0])


# Opening


def test_an_exported_model_runs_by_its_own_metadata(exported, tensor_segmenter, photos):
    assert not sidecar_path(exported("fcn8s")).exists()
    with Segmenter(str(exported("fcn8s"))) as segmenter:
        assert segmenter.io == "tensor"
        assert segmenter.sidecar is None
        assert segmenter.spec == tensor_segmenter.spec
        np.testing.assert_array_equal(segmenter(photos[0]), tensor_segmenter(photos[0]))


def test_options_reach_the_library_and_bad_ones_are_refused(engine, photos):
    with Segmenter(engine("image"), threads=2, provider="cpu") as segmenter:
        segmenter(photos[0])
    with pytest.raises(UsageError, match="threads; got 0"):
        Segmenter(engine("image"), threads=0)
    with pytest.raises(UsageError, match="unknown provider; got 'gpu'; expected cpu or cuda"):
        Segmenter(engine("image"), provider="gpu")
    with pytest.raises(UsageError, match="`allow_host_code` is for TensorRT plans"):
        Segmenter(engine("image"), allow_host_code=True)
    with pytest.raises(TypeError):
        Segmenter(engine("image"), 2)


def test_options_in_one_object_are_those_of_the_keywords(engine, photos):
    options = RuntimeOptions(threads=2, provider="cpu", tile=(64, 64))
    with Segmenter.open(str(engine("image")), options) as opened, Segmenter(engine("image")) as segmenter:
        np.testing.assert_array_equal(opened(photos[0]), segmenter(photos[0]))
    with pytest.raises(UsageError, match="`device` is for"):
        Segmenter.open(engine("image"), RuntimeOptions(device=1))


def test_every_runtime_option_is_a_keyword_of_the_segmenter():
    keywords = {
        name: parameter.default
        for name, parameter in inspect.signature(Segmenter).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert keywords == {**asdict(RuntimeOptions()), "spec": None}


def test_a_spec_goes_with_options_in_one_object(engine, moved, make_spec):
    path = moved(engine("image"), sidecar=False)
    spec = make_spec(5)
    with Segmenter.open(path, RuntimeOptions(threads=1), spec=spec) as segmenter:
        assert segmenter.spec is spec


def test_options_for_opening_a_file_are_refused_with_a_backend(exported):
    with OnnxRuntimeBackend(exported("fcn8s"), threads=1) as backend:
        with pytest.raises(UsageError, match=r"open already; got `threads`, `allow_host_code`; fix: pass them"):
            Segmenter(backend, threads=1, allow_host_code=True)
        with Segmenter(backend, tile=(64, 64)) as segmenter:
            assert segmenter.io == "tensor"


def test_a_provider_that_is_not_there_is_never_replaced(engine, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DependencyError, match="has no cuda provider") as caught:
        Segmenter(engine("image"), provider="cuda")
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("io", ["image", "tensor"])
def test_an_engine_without_its_sidecar_is_refused(engine, moved, io):
    path = moved(engine(io), sidecar=False)
    with pytest.raises(ArtifactError, match=re.escape(f"{path} has no sidecar")) as caught:
        Segmenter(path)
    assert caught.value.exit_code == 5
    assert "pass spec= to Segmenter" in str(caught.value)
    assert str(sidecar_path(path)) in str(caught.value)


@pytest.mark.parametrize("io", ["image", "tensor"])
def test_an_engine_without_its_sidecar_runs_by_a_spec(engine, moved, segmenter, photos, io):
    path = moved(engine(io), sidecar=False)
    with Segmenter(path, spec=segmenter.spec) as alone:
        assert alone.spec is segmenter.spec
        assert np.mean(alone(photos[0]) == segmenter(photos[0])) > 0.999


def test_a_spec_takes_precedence_over_the_sidecars(engine, make_spec):
    spec = make_spec(5)
    with Segmenter(engine("image"), spec=spec) as segmenter:
        assert segmenter.spec is spec


@pytest.mark.parametrize("where", [0, 1000, -1])
def test_an_engine_with_a_changed_byte_is_refused(engine, moved, where):
    path = moved(engine("image"))
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is not the file its sidecar describes; got sha256"):
        Segmenter(path)


def test_a_changed_engine_is_refused_with_a_spec_too(engine, moved, make_spec):
    path = moved(engine("image"))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="is not the file its sidecar describes"):
        Segmenter(path, spec=make_spec(5))


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_a_sidecar_of_an_unknown_format_is_refused(engine, moved, version):
    path = moved(engine("image"))
    edit_sidecar(path, lambda data: data.update(format=version))
    with pytest.raises(ArtifactError, match=r'unknown format; got "format": .*expected "format": 1') as caught:
        Segmenter(path)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', "\xff"])
def test_a_malformed_sidecar_is_refused(engine, moved, content):
    path = moved(engine("image"))
    sidecar_path(path).write_text(content, encoding="latin-1")
    with pytest.raises(ArtifactError, match=re.escape(str(sidecar_path(path)))):
        Segmenter(path)


def test_an_engine_for_vnni_is_refused_without_it_and_runs_with_it(engine, photos, exact_8_bits):
    path = engine("image", "int8", "vnni")
    for answer, words in ((False, "a CPU without VNNI"), (None, "does not say")):
        exact_8_bits(answer)
        with pytest.raises(ArtifactError, match=f'VNNI.*{words}.*`target_cpu="generic"`') as caught:
            Segmenter(path)
        assert caught.value.exit_code == 5
    exact_8_bits(True)
    with Segmenter(path) as segmenter:
        assert segmenter(photos[0]).shape == photos[0].shape[:2]


def test_an_int8_engine_for_every_cpu_runs_without_vnni(engine, photos, image_segmenter, exact_8_bits):
    exact_8_bits(False)
    with Segmenter(engine("image", "int8")) as segmenter:
        agreement = np.mean([np.mean(segmenter(photo) == image_segmenter(photo)) for photo in photos])
    assert agreement > 0.9


def test_a_file_that_does_not_exist_is_an_input_error(tmp_path):
    for path in (tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(InputError, match=re.escape(f"cannot read {path}")) as caught:
            Segmenter(path)
        assert caught.value.exit_code == 6


@pytest.mark.parametrize("name", ["net.engine", "net.pth", "net"])
def test_a_file_of_another_kind_is_refused(engine, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(engine("image").read_bytes())
    with pytest.raises(FcnDeployError, match=re.escape(str(path))) as caught:
        Segmenter(path)
    assert caught.value.exit_code == (5 if name == "net.engine" else 6)


def test_a_corrupt_file_is_refused(exported, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(exported("fcn8s").read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match=re.escape(f"cannot load {path}")):
        Segmenter(path)


def test_a_model_with_other_inputs_and_outputs_is_refused(tiny_net):
    path = tiny_net(np.eye(3), names=("input", "scores"))
    with pytest.raises(ArtifactError, match=r"got input: float32 .*; scores: float32 .*; expected image and lab"):
        Segmenter(path)


def test_a_model_that_does_not_say_what_it_is_is_refused(tiny_net, make_spec):
    path = tiny_net(np.eye(3), spec="")
    with pytest.raises(ArtifactError, match="nothing says how the engine's images are normalised") as caught:
        Segmenter(path)
    assert caught.value.exit_code == 5
    with Segmenter(path, spec=make_spec(3)) as segmenter:
        assert segmenter(np.zeros((2, 2, 3), np.uint8)).shape == (2, 2)


@pytest.mark.parametrize("text", ["nonsense", "{}", '{"format": 9}', '{"format": 1, "variant": "fcn8s"}'])
def test_malformed_metadata_is_an_artifact_error(tiny_net, text):
    with pytest.raises(ArtifactError, match="the model's metadata") as caught:
        Segmenter(tiny_net(np.eye(3), spec=text))
    assert caught.value.exit_code == 5
