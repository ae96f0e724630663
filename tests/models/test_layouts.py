"""Published checkpoints: the paper's geometry, compared with a reference written from its layer table."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcn_deploy.artifacts.geometry import AT_ONCE, PAPER, Geometry
from fcn_deploy.artifacts.normalization import CAFFE
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.parity import relative_error
from fcn_deploy.models import FCN, load_model, read_checkpoint
from fcn_deploy.models.load import load_net, load_reference
from fcn_deploy.models.spec_options import SpecOptions, make_spec
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.image import normalize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.workflows.calibrating import calibrate
from fcn_deploy.workflows.exporting import export
from tests.support.building import build

TRUNK = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
FINEST = {32: "upscore", 16: "upscore16", 8: "upscore8"}


def _published_state(stride, classes=4, width=0.0625, seed=0):
    """Random weights under pytorch-fcn's names, in the shapes of the published layer table."""
    random = torch.Generator().manual_seed(seed)
    state = {}

    def conv(name, inputs, outputs, kernel, gain=1.0):
        scale = gain * (2 / (inputs * kernel**2)) ** 0.5
        state[f"{name}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel, generator=random)
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=random)

    def deconv(name, kernel):
        state[f"{name}.weight"] = torch.randn(classes, classes, kernel, kernel, generator=random) / kernel

    inputs = 3
    for block, (channels, convs) in enumerate(TRUNK, start=1):
        for index in range(1, convs + 1):
            outputs = round(channels * width)
            conv(f"conv{block}_{index}", inputs, outputs, 3)
            inputs = outputs
    dense = round(4096 * width)
    conv("fc6", inputs, dense, 7)
    conv("fc7", dense, dense, 1)
    conv("score_fr", dense, classes, 1)
    if stride <= 16:
        conv("score_pool4", round(512 * width), classes, 1, 5.0)
        deconv("upscore2", 4)
    if stride == 8:
        conv("score_pool3", round(256 * width), classes, 1, 5.0)
        deconv("upscore_pool4", 4)
    deconv(FINEST[stride], 2 * stride)
    return state


def _published_forward(state, image, stride, scales=(1.0, 1.0)):
    """The published nets, layer by layer: pad by 100, fc6 without padding, deconvolutions without bias, fixed crops."""

    def conv(name, x, padding=0):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def deconv(name, x, by):
        return F.conv_transpose2d(x, state[f"{name}.weight"], stride=by)

    x, pools = image, {}
    for block, (_, convs) in enumerate(TRUNK, start=1):
        for index in range(1, convs + 1):
            x = F.relu(conv(f"conv{block}_{index}", x, 100 if (block, index) == (1, 1) else 1))
        x = pools[block] = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = conv("score_fr", F.relu(conv("fc7", F.relu(conv("fc6", x)))))
    if stride <= 16:
        x = deconv("upscore2", x, 2)
        skip = conv("score_pool4", pools[4] * scales[0])
        x = x + skip[:, :, 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
    if stride == 8:
        x = deconv("upscore_pool4", x, 2)
        skip = conv("score_pool3", pools[3] * scales[1])
        x = x + skip[:, :, 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
    x = deconv(FINEST[stride], x, stride)
    cut = {32: 19, 16: 27, 8: 31}[stride]
    return x[:, :, cut : cut + image.shape[2], cut : cut + image.shape[3]]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")

    def write(stride):
        path = folder / f"{stride}.pth"
        if not path.exists():
            torch.save(_published_state(stride), path)
        return path

    return write


@pytest.mark.parametrize("stride", [32, 16, 8])
@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 140), width=st.integers(1, 140))
@example(height=1, width=1)
@example(height=97, width=65)
def test_every_stride_computes_what_the_layer_table_says_at_every_size(published, stride, height, width):
    checkpoint = read_checkpoint(published(stride))
    assert (checkpoint.info.layout, checkpoint.geometry, checkpoint.stride) == ("pytorch-fcn", PAPER, stride)
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    with torch.inference_mode():
        expected = _published_forward(_published_state(stride), image, stride).numpy()
        found = load_model(checkpoint)(image).numpy()
    assert found.shape == (2, 4, height, width)
    assert relative_error(expected, found) <= 1e-5


def test_a_net_trained_at_once_scales_its_skips(published):
    checkpoint = read_checkpoint(published(8))
    spec = make_spec(checkpoint, SpecOptions(at_once=True))
    assert spec.geometry.skip_scales == AT_ONCE
    image = torch.randn(1, 3, 70, 50)
    with torch.inference_mode():
        expected = _published_forward(_published_state(8), image, 8, AT_ONCE).numpy()
        found = load_model(checkpoint, spec.geometry)(image).numpy()
        staged = load_model(checkpoint)(image).numpy()
    assert relative_error(expected, found) <= 1e-5
    assert relative_error(expected, staged) > 1e-3


@pytest.mark.parametrize("stride", [32, 8])
def test_the_export_is_exact_at_every_size(published, tmp_path, stride):
    output = tmp_path / "net.onnx"
    assert export(published(stride), at_once=stride == 8, output=output).error <= 1e-5
    backend = OnnxRuntimeBackend(output)
    state = _published_state(stride)
    for batch, height, width in ((1, 1, 1), (2, 33, 50), (1, 120, 97)):
        image = torch.randn(batch, 3, height, width)
        scales = AT_ONCE if stride == 8 else (1.0, 1.0)
        with torch.inference_mode():
            expected = _published_forward(state, image, stride, scales).numpy()
        assert relative_error(expected, backend.infer({"image": image.numpy()})["logits"]) <= 1e-5


def test_the_layout_says_how_images_are_normalised(published, caplog):
    with caplog.at_level(logging.WARNING):
        spec = make_spec(read_checkpoint(published(16)))
    assert spec.normalization == CAFFE
    assert spec.geometry == PAPER
    assert not caplog.records


def test_fc6_of_7x7_in_the_plain_layout_keeps_its_size(tmp_path):
    geometry = Geometry(fc6_kernel=7)
    net = FCN(8, 3, 0.0625, geometry).eval()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    checkpoint = read_checkpoint(tmp_path / "net.pth")
    assert checkpoint.geometry == geometry
    assert net.fc6.padding == (3, 3)
    image = torch.randn(1, 3, 45, 70)
    with torch.inference_mode():
        torch.testing.assert_close(load_model(checkpoint)(image), net(image))
        assert net(image).shape == (1, 3, 45, 70)


@pytest.mark.parametrize("biases", [True, False])
def test_published_keys_without_the_published_padding_load_with_input_padding_0(tmp_path, biases):
    net = FCN(8, 3, 0.0625, Geometry(fc6_kernel=7)).eval()
    for name, parameter in net.named_parameters():
        if name.startswith("upscore") and name.endswith("bias"):
            parameter.data.uniform_(-1, 1) if biases else parameter.data.zero_()
    renames = {".0.": ".", "score_pool4_fr": "score_pool4", "score_pool3_fr": "score_pool3"}
    state = {}
    for key, tensor in net.state_dict().items():
        for before, after in {**renames, "upscore2_pool4": "upscore_pool4"}.items():
            key = key.replace(before, after)
        if biases or not (key.startswith("upscore") and key.endswith("bias")):
            state[key] = tensor
    torch.save(state, tmp_path / "net.pth")
    loaded = load_net(str(tmp_path / "net.pth"), SpecOptions(input_padding=0))
    assert loaded.spec.geometry == Geometry(fc6_kernel=7)
    image = torch.randn(1, 3, 45, 70)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.module(image), net(image))
        torch.testing.assert_close(load_reference(tmp_path / "net.pth", loaded.spec).module(image), net(image))


def test_a_published_checkpoint_that_lacks_a_tensor_is_refused(tmp_path):
    state = _published_state(8)
    del state["score_pool3.bias"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"missing: score_pool3_fr\.bias"):
        read_checkpoint(tmp_path / "net.pth")


def test_a_geometry_that_was_never_published_is_refused():
    with pytest.raises(InputError, match="geometry"):
        Geometry(fc6_kernel=1, input_padding=100)


@pytest.mark.slow
def test_a_published_net_of_full_width_goes_all_the_way_to_int8(tmp_path):
    """134 M parameters, from its checkpoint to labels of an image of 500x375."""
    from PIL import Image

    state = _published_state(8, classes=21, width=1.0)
    weights, model, engine = tmp_path / "net.pth", tmp_path / "net.onnx", tmp_path / "net.int8.onnx"
    torch.save(state, weights)
    export(weights, output=model)
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((375, 500), Image.Resampling.BICUBIC))
    with Segmenter(model) as segmenter, torch.inference_mode():
        logits = segmenter.logits(image)
        expected = _published_forward(state, torch.from_numpy(normalize(image[np.newaxis], CAFFE)), 8)[0].numpy()
    assert relative_error(expected, logits) <= 1e-5
    Image.fromarray(image[:160, :160]).save(tmp_path / "crop.png")
    ranges = calibrate(model, ImageFolder((tmp_path / "crop.png",)))
    build(model, BuildConfig("int8"), ranges).save(engine)
    with Segmenter(engine) as segmenter:
        labels = segmenter(image)
    assert labels.shape == (500, 375)
    assert (labels == logits.argmax(0)).mean() > 0.8
