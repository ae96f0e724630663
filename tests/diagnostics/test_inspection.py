"""What `inspect` says of each kind of file."""

import io
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from rich.console import Console
from safetensors.torch import save_file

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import sidecar_path
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.diagnostics.inspection import inspect_file
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.tensorrt.layer_table import read_layer_table
from fcn_deploy.engines.tensorrt.plan_reader import read_plan
from fcn_deploy.errors import ArtifactError, InputError, UsageError
from fcn_deploy.files import sha256_file
from fcn_deploy.reporting.facts import brief, detail_table, facts_table
from fcn_deploy.reporting.plan_table import plan_table
from fcn_deploy.reporting.tables import summary_table
from fcn_deploy.reporting.units import with_prefix
from tests.support.building import build
from tests.support.bundles import make_bundle
from tests.support.layer_tables import RTX

SUMMARY = Path(__file__).parents[1] / "artifacts" / "golden" / "summary.json"


@pytest.fixture(scope="module")
def engine(exported, ranges_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "net.int8.onnx"
    build(exported("fcn8s"), BuildConfig("int8"), ranges_file("fcn8s")).save(path)
    return path


def _printed(table, width=120):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def _save(path, nodes, dims, **arrays):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, list("abcd")[: len(dims)])],
        [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


CONV = helper.make_node("Conv", ["image", "w"], ["out"], name="[conv]")


def test_a_model_is_described_for_512x512_unless_told_otherwise(exported):
    facts = inspect_file(exported("fcn8s"))
    assert (facts["kind"], facts["shape"], facts["parameters"]) == ("ONNX model", [1, 512, 512], 140818)
    assert facts["layers"][0] == {
        "name": "conv1_1",
        "op": "Conv",
        "weights": (4, 3, 3, 3),
        "output": (1, 4, 512, 512),
        "parameters": 112,
        "macs": 512 * 512 * 4 * 27,
        "precision": "fp32",
    }
    assert facts["macs"] == sum(layer["macs"] for layer in facts["layers"])
    smaller = inspect_file(exported("fcn8s"), ImageShape(2, 33, 64))
    assert smaller["shape"] == [2, 33, 64]
    assert smaller["layers"][0]["output"] == (2, 4, 33, 64)
    assert smaller["macs"] < facts["macs"]


def test_an_engine_has_its_weights_counted_once_and_its_sidecar_confirmed(engine, exported):
    facts = inspect_file(engine)
    assert (facts["kind"], facts["parameters"]) == ("engine", 149133)
    counted, asked = (
        {layer["name"]: layer["macs"] for layer in each["layers"]} for each in (facts, inspect_file(exported("fcn8s")))
    )
    # As a sub-pixel convolution upscore8 has 9/4 of the products, and weights, of its kernel; see passes.upsampling.
    assert counted.pop("upscore8") == asked.pop("upscore8") * 9 / 4
    assert counted == asked
    precisions = {layer["name"]: layer["precision"] for layer in facts["layers"]}
    assert precisions == facts["sidecar"]["precision"]["layers"]
    assert set(precisions.values()) == {"int8", "fp32"}


def test_a_sidecar_that_the_graph_belies_is_an_artifact_error(engine, tmp_path):
    copy = tmp_path / engine.name
    copy.write_bytes(engine.read_bytes())
    sidecar = json.loads(sidecar_path(engine).read_text())
    assert sidecar["precision"]["layers"]["conv1_1"] == "fp32"
    sidecar["precision"]["layers"]["conv1_1"] = "int8"
    sidecar_path(copy).write_text(json.dumps(sidecar))
    with pytest.raises(ArtifactError, match="got conv1_1 in fp32; expected conv1_1 in int8"):
        inspect_file(copy)


def _plan(path, engine, layers=None, **precision):
    sidecar = json.loads(sidecar_path(engine).read_text())
    path.write_bytes(b"a plan")
    sidecar["engine"] = {"file": path.name, "sha256": sha256_file(path), "bytes": 6}
    sidecar |= {"backend": "tensorrt", "library": "10.3.0", "target": {"cpu": "generic", "gpu": ["8.7"]}}
    sidecar["profiles"] = [{"min": [1, 32, 32], "opt": [1, 512, 512], "max": [4, 1024, 1024]}] * 2
    sidecar["precision"] |= {"base": "fp16", "achieved": "unknown", **precision}
    if layers is not None:
        sidecar["precision"]["achieved_layers"] = layers
    sidecar_path(path).write_text(json.dumps(sidecar))
    return path


@pytest.mark.parametrize("suffix", ["engine", "plan"])
def test_a_plan_is_described_by_its_sidecar_with_asked_and_achieved(engine, tmp_path, suffix):
    path = _plan(tmp_path / f"net.{suffix}", engine, {"conv1_1": "fp32", "conv1_2": None}, achieved="partial")
    facts = inspect_file(path)
    assert (facts["kind"], facts["bytes"], facts["sha256"]) == ("plan", 6, sha256_file(path))
    assert facts["precisions"]["conv1_1"] == {"asked": "fp32", "achieved": "fp32"}
    assert facts["precisions"]["conv1_2"] == {"asked": "int8", "achieved": None}
    assert facts["sidecar"]["precision"]["achieved"] == "partial"
    assert len(facts["profiles"]) == 2
    said = _printed(facts_table(path.name, brief(facts)))
    assert "min 1x32x32, opt 1x512x512, max 4x1024x1024" in said
    assert "GPU, 8.7" in said
    assert "achieved: partial" in said
    table = _printed(detail_table(facts))
    assert "not told" in table
    assert max(len(line) for line in table.splitlines()) <= 80


def test_of_a_plan_nobody_looked_into_there_is_no_column_of_what_was_achieved(engine, tmp_path):
    facts = inspect_file(_plan(tmp_path / "net.engine", engine))
    assert "achieved: unknown" in _printed(facts_table("file", brief(facts)))
    table = _printed(detail_table(facts))
    assert "asked" in table
    assert "achieved" not in table


def test_the_kernels_of_a_plan_are_a_table_of_80_characters(engine, tmp_path):
    path = _plan(tmp_path / "net.engine", engine)
    sidecar = json.loads(sidecar_path(path).read_text())
    sidecar["plan"] = read_plan(read_layer_table(RTX), "log").to_json()
    sidecar_path(path).write_text(json.dumps(sidecar))
    facts = inspect_file(path)
    plan = facts["plan"]
    assert (plan["source"], plan["kernels"], plan["reformats"], plan["moved_bytes"]) == ("log", 3, 0, None)
    assert [layer["bytes_per_element"] for layer in plan["layers"]] == [4, 5, 1]
    conv, rest, _ = plan["layers"]
    assert (conv["reads"], conv["writes"]) == (["int8 -1x64x-1x-1 NHWC"], ["fp32 -1x64x-1x-1 NHWC"])
    assert (rest["belongs_to"], rest["nodes"][-1]) == (conv["name"], "pool1/MaxPool/QuantizeLinear")
    said = _printed(facts_table(path.name, brief(facts)))
    assert "3 kernels, 0 reformats, 0 tensors written twice, by the log" in said
    table = _printed(plan_table(plan)).splitlines()
    assert max(map(len, table)) <= 80
    rows = [line.split() for line in table[3:-1]]
    assert rows[0] == ["conv1_2", "correlation", "int8", "->", "fp32", "4", "DQ,", "DQ"]
    assert rows[1] == ["Q", "MulCastAddReluMulMi…", "fp32", "->", "int8", "5", "Relu,", "conv1_2"]
    assert rows[2] == ["pool1/MaxPool", "maxpool", "int8", "->", "int8", "1"]


def test_a_plan_without_its_sidecar_or_with_anothers_is_an_artifact_error(engine, tmp_path):
    path = _plan(tmp_path / "net.engine", engine)
    with pytest.raises(UsageError, match="only a model has a shape"):
        inspect_file(path, ImageShape(1, 32, 32))
    path.write_bytes(b"another")
    with pytest.raises(ArtifactError, match="not the file its sidecar describes"):
        inspect_file(path)
    sidecar_path(path).unlink()
    with pytest.raises(ArtifactError, match="has no sidecar"):
        inspect_file(path)


def test_a_fixed_shape_is_the_shape_and_no_other_is_taken(tmp_path):
    path = _save(tmp_path / "fixed.onnx", [CONV], [2, 3, 40, 56], w=(4, 3, 1, 1))
    assert inspect_file(path)["shape"] == [2, 40, 56]
    assert inspect_file(path, ImageShape(2, 40, 56))["layers"][0]["output"] == (2, 4, 40, 56)
    with pytest.raises(UsageError, match='got `shape="1x40x56"`; expected 2x40x56'):
        inspect_file(path, ImageShape(1, 40, 56))


def test_a_model_that_takes_no_images_is_described_without_a_shape(tmp_path):
    path = _save(tmp_path / "spectra.onnx", [CONV], ["batch", 1, "bins"], w=(4, 1, 5))
    facts = inspect_file(path)
    assert (facts["shape"], facts["macs"], facts["parameters"]) == (None, None, 20)
    said = _printed(detail_table(facts))
    assert "[conv] Conv 4x1x5   ?" in said
    assert "not known" in _printed(facts_table("file", brief(facts)))
    with pytest.raises(UsageError, match="takes no images"):
        inspect_file(path, ImageShape(1, 5, 5))


def test_a_model_without_layers_says_so_by_saying_nothing(tmp_path):
    facts = inspect_file(
        _save(tmp_path / "relu.onnx", [helper.make_node("Relu", ["image"], ["out"])], ["n", 3, "h", "w"])
    )
    assert (facts["layers"], facts["macs"], facts["parameters"]) == ([], 0, 0)
    assert detail_table(facts) is None


def test_a_checkpoint_of_ours_is_described_by_its_layout_and_tensors(checkpoint_file):
    facts = inspect_file(checkpoint_file("fcn8s"))
    assert (facts["layout"], facts["variant"], facts["num_classes"], facts["width"]) == ("seed", "fcn8s", 5, 0.0625)
    assert facts["parameters"] == 140818
    assert facts["tensors"]["conv1_1.0.weight"] == {"shape": [4, 3, 3, 3], "parameters": 108, "dtype": "float32"}
    said = _printed(detail_table(facts))
    assert "score_pool3_fr.weight" in said
    assert "5x16x1x1" in said


def test_a_checkpoint_of_the_users_own_net_is_described_by_its_tensors(tmp_path):
    path = tmp_path / "own.pth"
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).half()
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, path)
    facts = inspect_file(path)
    assert (facts["kind"], facts["layout"], facts["variant"], facts["spec"]) == ("checkpoint", None, None, None)
    assert facts["tensors"]["0.weight"] == {"shape": [4, 3, 3, 3], "parameters": 108, "dtype": "float16"}
    assert facts["tensors"]["1.num_batches_tracked"] == {"shape": [], "parameters": 1, "dtype": "int64"}
    assert facts["parameters"] == 108 + 4 + 4 * 4 + 1
    assert "custom net" in _printed(facts_table("file", brief(facts)))
    assert "scalar" in _printed(detail_table(facts))


def test_torchvisions_vgg16_is_described(tmp_path):
    path = tmp_path / "vgg16.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3), "classifier.6.bias": torch.zeros(1000)}, path)
    facts = inspect_file(path)
    assert facts["layout"] is None
    assert facts["tensors"].keys() == {"features.0.weight", "classifier.6.bias"}


def test_the_spec_in_a_safetensors_file_is_described(tmp_path):
    spec = ModelSpec("own", 8, 1.0, 2, ("road", "sky"), default_palette(2))
    path = tmp_path / "own.safetensors"
    save_file({"stem.weight": torch.zeros(4, 3)}, path, {METADATA_KEY: spec.dumps()})
    assert inspect_file(path)["spec"]["classes"] == ("road", "sky")


def test_a_checkpoint_of_ours_with_a_tensor_missing_is_an_input_error(make_net, tmp_path):
    state = make_net(8).state_dict()
    del state["fc7.bias"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"missing: fc7\.bias"):
        inspect_file(tmp_path / "net.pth")


def test_ranges_are_listed_by_tensor(ranges_file):
    facts = inspect_file(ranges_file("fcn8s"))
    seen = facts["tensors"]["conv1_1/Relu"]
    assert seen["min"] == 0
    assert seen["max"] > 0
    assert math.isfinite(seen["max"])
    assert seen["bins"] > 100
    assert "conv1_1/Relu" in _printed(detail_table(facts))


def test_a_summary_is_its_document_and_the_table_that_deploy_printed():
    content = json.loads(SUMMARY.read_text())
    facts = inspect_file(SUMMARY)
    assert facts == {"kind": "summary", **content}
    table = _printed(detail_table(facts), 80)
    assert table == _printed(summary_table(Summary.from_json(content)), 80)
    assert "fcn16s.int8.onnx" in table
    assert "FAILED" in table


@pytest.mark.parametrize("changes", [{"gpu": "a GPU"}, {"gpu": "a GPU", "requires": ["gpu"]}])
def test_a_summary_of_a_gpu_is_shown_too(tmp_path, changes):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({**json.loads(SUMMARY.read_text()), **changes}))
    assert inspect_file(path)["gpu"] == "a GPU"


def test_a_summary_that_requires_what_nobody_knows_is_refused(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({**json.loads(SUMMARY.read_text()), "requires": ["luck"]}))
    with pytest.raises(ArtifactError, match="requires 'luck'"):
        inspect_file(path)


def test_a_sidecar_that_requires_openvino_is_shown_too(engine, tmp_path):
    path = tmp_path / "net.onnx.json"
    sidecar = json.loads(sidecar_path(engine).read_text())
    path.write_text(json.dumps({**sidecar, "backend": "openvino", "requires": ["openvino"]}))
    assert inspect_file(path)["backend"] == "openvino"


def test_the_folder_of_a_bundle_is_the_bundle(tmp_path):
    make_bundle(tmp_path / "bundle")
    assert inspect_file(tmp_path / "bundle") == inspect_file(tmp_path / "bundle" / "bundle.json")
    with pytest.raises(InputError, match="a folder"):
        inspect_file(tmp_path)


def test_a_summary_that_lacks_a_key_is_an_input_error(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"format": 1, "engines": [], "shape": [96, 128]}))
    with pytest.raises(InputError, match="the summary is malformed"):
        inspect_file(path)


def test_only_a_model_has_a_shape_to_choose(checkpoint_file):
    with pytest.raises(UsageError, match=r"got `shape` 1x5x5 for fcn8s\.pth"):
        inspect_file(checkpoint_file("fcn8s"), ImageShape(1, 5, 5))


def test_the_layers_of_the_published_size_fit_into_80_characters(exported):
    # Names, operators and numbers as long as those of the full net, for a large batch.
    facts = inspect_file(exported("fcn8s"))
    widest = {"weights": (4096, 4096, 1, 1), "output": (4, 64, 1024, 1024), "parameters": 999_400, "macs": 999 * 10**9}
    facts |= {"layers": [layer | widest for layer in facts["layers"]], "macs": 999 * 10**9}
    assert max(len(line) for line in _printed(detail_table(facts), 200).splitlines()) <= 80


def test_long_names_are_folded(tmp_path):
    path = tmp_path / "own.pth"
    torch.save({"module.block." * 9 + "weight": torch.zeros(3)}, path)
    assert max(len(line) for line in _printed(detail_table(inspect_file(path))).splitlines()) <= 80


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0"),
        (640, "640"),
        (1000, "1.00 k"),
        (36_928, "36.9 k"),
        (589_824, "590 k"),
        (2_359_808, "2.36 M"),
        (85_499_183_104, "85.5 G"),
        (1.369e12, "1.37 T"),
    ],
)
def test_counts_have_three_digits_and_a_prefix(count, said):
    assert with_prefix(count) == said
    assert with_prefix(count, "MAC") == (said if " " in said else f"{said} ") + "MAC"


def test_a_bundle_is_described_by_its_manifest_once_it_is_checked(call, tmp_path):
    folder = make_bundle(tmp_path / "bundle").folder
    facts = json.loads(call("inspect", folder / "bundle.json", "--json").out)
    assert (facts["kind"], facts["backend"], [*facts["graphs"]]) == ("bundle", "tensorrt", ["fp16", "int8"])
    assert "tensorrt" in call("inspect", folder / "bundle.json").out
    (folder / "fp16.onnx").write_bytes(b"another graph......")
    assert "another size" in call("inspect", folder / "bundle.json", code=5).err
