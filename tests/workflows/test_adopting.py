"""`adopt`: models of other tools go the whole way, and what does not is refused before anything is written."""

import json
import sys
import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.errors import GateError, InputError, UsageError
from fcn_deploy.files import sha256_file
from fcn_deploy.graph.model import load_exported
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.image import normalize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.workflows import adoption
from fcn_deploy.workflows.adopting import adopt
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.inspecting import inspect
from fcn_deploy.workflows.verifying import verify
from tests.support import custom_nets
from tests.support.foreign_models import concatenating, net, saved

IMAGENET = {"normalization": "imagenet"}
# What is adopted, and how.
NETS = {
    "plain": ({}, IMAGENET),
    "half": ({"dtype": "float16"}, IMAGENET),
    "bytes": ({"dtype": "uint8", "layout": "nhwc"}, {}),
    "fixed": ({"sizes": (1, 40, 56), "layout": "nhwc", "opset": 11}, IMAGENET),
    "labels": ({"end": "ArgMax", "outputs": ["middle_relu"], "opset": 13}, {**IMAGENET, "logits": "large"}),
    "binary": ({"end": "Sigmoid", "classes": 1}, IMAGENET),
    "coarse": ({"enlarge": False}, {**IMAGENET, "resize_logits": "bilinear"}),
}


@pytest.fixture(scope="module", params=NETS)
def adopted(request, tmp_path_factory):
    """The file of another tool, and what was adopted of it."""
    folder = tmp_path_factory.mktemp(request.param)
    (made, options), file = NETS[request.param], folder / "adopted.onnx"
    source = saved(net(**made), folder / f"{request.param}.onnx")
    adopt(source, **options, simplify=False, output=file)
    return source, file


def test_an_adopted_model_becomes_an_int8_engine_that_labels_images(adopted, photo_folder, photos, tmp_path):
    source, file = adopted
    engine = build_engine(
        file, precision="int8", calib_data=photo_folder, calib_size="40x56", output=tmp_path / "e.onnx"
    )
    layers = engine.sidecar.precision.layers
    assert {"middle", "late"} <= {name for name, precision in layers.items() if precision == "int8"}
    assert layers["score"] == "fp32"
    with Segmenter(tmp_path / "e.onnx") as segmenter, Segmenter(file) as reference:
        image = photos[0][:40, :56]
        labels = segmenter(image)
        assert labels.shape == image.shape[:2]
        assert np.mean(labels == reference(image)) >= 0.9
        assert segmenter.spec.variant == source.stem


def test_its_logits_are_those_of_the_original(adopted, photos):
    source, file = adopted
    with Segmenter(file) as segmenter, OnnxRuntimeBackend(source.read_bytes()) as original:
        image = photos[0][:40, :56]
        found = segmenter.logits(image)
        spec, first = segmenter.spec, original.inputs[0]
        fed = image[np.newaxis] if first.dtype == "uint8" else normalize(image[np.newaxis], spec.normalization)
        if source.stem == "fixed":
            fed = fed.transpose(0, 2, 3, 1)
        results = original.infer({first.name: fed.astype(first.dtype)})
    if source.stem == "labels":
        np.testing.assert_array_equal(found.argmax(0), results["output"][0, 0])
        return
    expected = results["output"][0].astype(np.float32)
    expected = expected.transpose(2, 0, 1) if first.shape[-1] == 3 else expected
    if source.stem == "coarse":
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(expected[np.newaxis]), image.shape[:2], mode="bilinear"
        )[0].numpy()
    tolerance = 1e-2 if source.stem == "half" else 1e-4
    np.testing.assert_allclose(found, expected, atol=tolerance * np.ptp(expected))


def test_the_spec_says_what_the_model_was_and_what_was_stated(adopted):
    source, file = adopted
    model = load_exported(file)
    spec = model.spec
    assert (spec.variant, spec.model, spec.stride, spec.geometry) == (source.stem, None, None, None)
    assert spec.adopted
    assert (spec.checkpoint.sha256, spec.checkpoint.layout) == (sha256_file(source), "onnx")
    assert spec.exporter["producer"] == "another tool 1.2"
    assert spec.receptive_field.top in (7, 8)
    assert not spec.normalization.assumed
    assert spec.threshold == (0.5 if source.stem == "binary" else None)
    assert spec.normalization.scale == (1 if source.stem == "bytes" else 1 / 255)
    assert inspect(file)["spec"]["variant"] == source.stem


def test_pytorch_is_no_reference(adopted, photo_folder, tmp_path):
    _, file = adopted
    torch.save({"weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"was an ONNX model, which has no PyTorch net.*name that as `reference`"):
        verify(file, data=photo_folder, weights=tmp_path / "net.pth")


def test_a_model_of_torchs_older_exporter_is_adopted_simplified_and_verified(photo_folder, tmp_path):
    class Out(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = custom_nets.trained(custom_nets.ResNetFCN())

        def forward(self, x):
            return self.net(x)["out"]

    source = tmp_path / "resnet.onnx"
    dims = {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Out().eval(),
            (torch.zeros(1, 3, 64, 96),),
            str(source),
            dynamo=False,
            opset_version=13,
            input_names=["data"],
            output_names=["scores"],
            dynamic_axes={"data": dims, "scores": dims},
        )
    model = adopt(source, **IMAGENET)
    assert model.error <= 1e-5
    assert model.spec.exporter["opset"] == 18
    engine = build_engine(model, precision="int8", calib_data=photo_folder)
    check = verify(engine, model, photo_folder)
    assert check.passed
    assert sum(precision == "int8" for precision in engine.sidecar.precision.layers.values()) >= 5


class _Noise(CalibrationDataReader):
    def __init__(self):
        random = np.random.default_rng(0)
        self._feeds = iter([{"input.1": random.normal(size=(1, 3, 48, 64)).astype(np.float32)} for _ in range(3)])

    def get_next(self):
        return next(self._feeds, None)


def test_a_prequantized_model_keeps_its_scales(tmp_path):
    saved(net(), tmp_path / "float.onnx")
    quantized = tmp_path / "quantized.onnx"
    scheme = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "reduce_range": True}
    quantize_static(tmp_path / "float.onnx", quantized, _Noise(), quant_format=QuantFormat.QDQ, **scheme)
    model = adopt(quantized, **IMAGENET)
    before, after = (
        sorted(numpy_helper.to_array(tensor).tobytes() for tensor in proto.graph.initializer if "scale" in tensor.name)
        for proto in (onnx.load(quantized), onnx.load_model_from_string(model.content))
    )
    assert set(before) == set(after)
    assert set(build_engine(model, precision="int8").sidecar.precision.layers.values()) == {"int8"}
    quantize_static(tmp_path / "float.onnx", quantized, _Noise(), quant_format=QuantFormat.QOperator, **scheme)
    with pytest.raises(InputError, match="quantised by integer operators"):
        adopt(quantized, **IMAGENET)


def test_weights_beside_the_model_are_embedded(tmp_path):
    (tmp_path / "source").mkdir()
    proto = net()
    onnx.save(proto, tmp_path / "source" / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    adopt(tmp_path / "source" / "m.onnx", **IMAGENET, simplify=False, output=tmp_path / "adopted.onnx")
    with Segmenter(tmp_path / "adopted.onnx") as segmenter:
        assert segmenter(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30)


def test_a_shape_fixes_the_sizes(tmp_path):
    model = adopt(saved(net(), tmp_path / "m.onnx"), shape="2x20x28", simplify=False, **IMAGENET)
    assert [str(value.shape) for value in (*model.graph.inputs, *model.graph.outputs)] == ["[2,3,20,28]", "[2,5,20,28]"]


@pytest.mark.parametrize("divisor", ["auto", 2])
def test_a_model_for_multiples_is_padded_in_the_graph(tmp_path, photos, divisor):
    source = saved(concatenating(), tmp_path / "m.onnx")
    options = {**IMAGENET, "pad_mode": "reflect", "simplify": False}
    model = adopt(source, size_divisor=divisor, **options, output=tmp_path / "a.onnx")
    assert model.spec.padding == Padding(2, "reflect")
    image = photos[0][:31, :45]
    with Segmenter(tmp_path / "a.onnx") as segmenter, OnnxRuntimeBackend(source.read_bytes()) as original:
        fed = normalize(image[np.newaxis], segmenter.spec.normalization)
        padded = np.pad(fed, ((0, 0), (0, 0), (0, 1), (0, 1)), "reflect")
        expected = original.infer({"input.1": padded})["output"][0, :, :31, :45]
        np.testing.assert_allclose(segmenter.logits(image), expected, atol=1e-4 * np.ptp(expected))


def test_a_cubic_resize_between_int8_layers_runs(tmp_path, photo_folder, photos):
    proto = net()
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 0.5, 0.5], np.float32), "half"))
    late = next(index for index, node in enumerate(proto.graph.node) if node.name == "late")
    proto.graph.node[late].input[0] = "smaller"
    proto.graph.node.insert(
        late, onnx.helper.make_node("Resize", ["middle_relu", "", "half"], ["smaller"], mode="cubic")
    )
    model = adopt(saved(proto, tmp_path / "m.onnx"), shape="1x40x56", simplify=False, **IMAGENET)
    build_engine(model, precision="int8", calib_data=photo_folder, calib_size="40x56", output=tmp_path / "e.onnx")
    model.save(tmp_path / "a.onnx")
    with Segmenter(tmp_path / "e.onnx") as segmenter, Segmenter(tmp_path / "a.onnx") as reference:
        image = photos[0][:40, :56]
        assert np.mean(segmenter(image) == reference(image)) >= 0.9


def test_a_normalisation_that_nobody_states_is_assumed_with_a_warning(tmp_path, caplog):
    model = adopt(saved(net(), tmp_path / "m.onnx"), simplify=False)
    assert model.spec.normalization.assumed
    assert "the model does not say how its images were normalised; assuming scale 0.0039" in caplog.text


@pytest.mark.parametrize(
    ("made", "options", "error", "what"),
    [
        ({}, {"num_classes": 7}, InputError, "the model has another number of classes; got 5; expected 7"),
        ({}, {"threshold": 0.5}, UsageError, "`threshold` is for binary nets"),
        ({}, {"threshold": float("nan")}, UsageError, "bad `threshold`; got nan"),
        ({}, {"layout": "chw"}, UsageError, "bad `layout`; got 'chw'; expected nchw or nhwc"),
        ({}, {"resize_logits": "cubic"}, UsageError, "bad `resize_logits`"),
        ({}, {"color": "grb"}, UsageError, "unknown `color`"),
        ({"dtype": "uint8"}, {"mean": (1, 2, 3)}, UsageError, "takes uint8, so it normalises images.*got `mean`"),
        ({"dtype": "uint8"}, IMAGENET, UsageError, "takes uint8, so it normalises images.*got `normalization`"),
        ({"sizes": (1, 32, 32)}, {"size_divisor": 8}, UsageError, "the model takes one size; got `size_divisor`"),
        ({}, {"pad_mode": "edge"}, UsageError, "`pad_mode` needs a divisor"),
        ({"end": "ArgMax"}, {}, InputError, "gives labels, not logits"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(tmp_path, made, options, error, what):
    source = saved(net(**made), tmp_path / "m.onnx")
    with pytest.raises(error, match=what):
        adopt(source, **options, output=tmp_path / "adopted.onnx")
    assert list(tmp_path.iterdir()) == [source]


def test_a_model_that_came_out_wrong_is_not_written(tmp_path, monkeypatch):
    source, written = saved(net(), tmp_path / "m.onnx"), tmp_path / "adopted.onnx"
    real = adoption._with_spec

    def other_weights(model, *arguments):
        value = model.graph.initializers["score.weight"]
        value.const_value = ir.tensor(value.const_value.numpy() * 2)
        return real(model, *arguments)

    monkeypatch.setattr(adoption, "_with_spec", other_weights)
    with pytest.raises(GateError, match=r"does not give the results of the original.*`simplify=False`"):
        adopt(source, simplify=False, output=written, **IMAGENET)
    assert not written.exists()


def test_adopting_needs_no_pytorch(tmp_path):
    import subprocess

    source = saved(net(), tmp_path / "m.onnx")
    script = (
        "import sys\nsys.modules['torch'] = None\nimport fcn_deploy\n"
        "fcn_deploy.adopt(sys.argv[1], simplify=False, normalization='imagenet')\n"
    )
    subprocess.run([sys.executable, "-c", script, source], check=True)


def test_the_command_writes_the_file_and_says_so(call, tmp_path):
    source, output = saved(net(end="Sigmoid", classes=1), tmp_path / "m.onnx"), tmp_path / "adopted.onnx"
    flags = ("--normalization", "imagenet", "--no-simplify", "-o", output)
    said = call("adopt", source, *flags).out
    assert f"wrote {output}; largest error against the original: 0.0e+00 of the logits' range" in said
    assert "label 1 where its value is above 0.5" in said
    report = json.loads(call("adopt", source, *flags, "--json").out)
    assert report == {"file": str(output), "sha256": sha256_file(output), "error": 0.0}
    said = call("adopt", saved(net(end="ArgMax"), source), *flags, code=6).err
    assert "fix: name the tensor before its ArgMax: --logits large" in said
