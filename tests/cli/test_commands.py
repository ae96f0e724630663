"""Every command once, in process: its files, its output, its exit code."""

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fcn_deploy.files import sha256_file


def test_export_writes_a_checked_model(call, checkpoint_file, tmp_path):
    output = tmp_path / "net.onnx"
    names = tmp_path / "names.csv"
    names.write_text("a\nb\nc\nd\ne\n")
    flags = ["--scale", 1, "--mean", "1,2,3", "--std", "1,1,2", "--color", "bgr", "--ignore-index", 11]
    said = call(
        *("export", "--weights", checkpoint_file("fcn32s"), "--variant", "fcn32s", "--num-classes", 5),
        *("--class-names", names, *flags, "--no-simplify", "-o", output, "--json"),
    )
    report = json.loads(said.out)
    assert report["error"] <= 1e-5
    assert report["sha256"] == sha256_file(output)
    spec = json.loads(call("inspect", output, "--json").out)["spec"]
    assert spec["classes"] == ["a", "b", "c", "d", "e"]
    assert spec["ignore_index"] == 11
    assert spec["normalization"] == {
        "color": "BGR",
        "scale": 1.0,
        "mean": [1.0, 2.0, 3.0],
        "std": [1.0, 1.0, 2.0],
        "assumed": False,
    }


def test_export_fixes_a_shape(call, checkpoint_file, tmp_path):
    output = tmp_path / "net.onnx"
    call("export", "--weights", checkpoint_file("fcn8s"), "--shape", "1x40x56", "-o", output)
    shape = onnx.load(output).graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [1, 3, 40, 56]


def test_a_net_that_exports_wrongly_is_a_failed_gate_and_no_file(call, checkpoint_file, tmp_path, monkeypatch):
    from fcn_deploy.onnx_export import tracing as export

    real = export.export_onnx

    def broken(model, spec, config):
        exported, guards = real(model, spec, config)
        bias = exported.graph.initializers["upscore32.bias"]
        bias.const_value = ir.tensor(bias.const_value.numpy() + 0.1, name=bias.name)
        return exported, guards

    monkeypatch.setattr(export, "export_onnx", broken)
    output = tmp_path / "net.onnx"
    said = call("export", "--weights", checkpoint_file("fcn32s"), "--no-simplify", "-o", output, code=3)
    assert "does not give the results of PyTorch" in said.err
    assert not list(tmp_path.iterdir())


def test_simplify_takes_an_exported_model(call, exported, tmp_path):
    report = json.loads(call("simplify", exported("fcn8s"), "-o", tmp_path / "s.onnx", "--json").out)
    assert report["nodes_after"] <= report["nodes_before"]
    assert (tmp_path / "s.onnx").is_file()


def test_calibrate_build_verify_benchmark_inspect(call, exported, checkpoint_file, photo_folder, tmp_path):
    model, ranges, engine = exported("fcn8s"), tmp_path / "ranges.json", tmp_path / "net.int8.onnx"

    said = call("calibrate", model, "--calib-data", photo_folder, "--max-images", 4, "-o", ranges, "--json")
    assert json.loads(said.out)["data"]["count"] == 4
    assert json.loads(ranges.read_text())["model_sha256"] == sha256_file(model)

    said = call("build-engine", model, "--int8", "--ranges", ranges, "--io", "tensor", "-o", engine, "--json")
    assert json.loads(said.out)["precision"]["achieved"] == "int8"
    assert json.loads(said.out)["precision"]["bias_corrected"] is True
    assert "backend: onnxruntime" in said.err
    plain = ("build-engine", model, "--int8", "--ranges", ranges, "--no-bias-correction")
    said = call(*plain, "--weight-rounding", "nearest", "-o", tmp_path / "plain.int8.onnx", "--json")
    assert json.loads(said.out)["precision"]["bias_corrected"] is False
    assert json.loads(said.out)["precision"]["weight_rounding"] == "nearest"

    fp32 = tmp_path / "net.onnx"
    assert "21 in FP32" in call("build-engine", model, "-o", fp32).out
    said = call("verify", fp32, "--weights", checkpoint_file("fcn8s"), "--data", photo_folder)
    assert "agreement 100.000%" in said.out
    said = call("verify", fp32, "--reference", model, "--data", photo_folder, "--max-images", 2, "--json")
    assert json.loads(said.out)["images"] == 2

    benchmark = ("benchmark", fp32, engine, f"pytorch:{checkpoint_file('fcn8s')}", "--shape", "2x33x40")
    quick = ("--duration", 0, "--iterations", 3, "--warmup", 0, "--percentile", "50,90")
    rows = json.loads(call(*benchmark, *quick, "--vs", model, "--json").out)["engines"]
    assert [row["name"] for row in rows] == [model.name, fp32.name, engine.name, "fcn8s.pth"]
    assert rows[0]["ratio"]["median"] == 1
    assert rows[1]["rounds"] == 3
    said = call(*benchmark, *quick).out
    assert "/ net.onnx" in said
    assert f"INT8 or FP32 is faster: {engine.name} takes" in said
    assert "FP16" not in said

    # As a builder of FP16 would have written it, beside any engine.
    twin = tmp_path / "net.fp16.onnx"
    twin.write_bytes(fp32.read_bytes())
    content = json.loads(fp32.with_name("net.onnx.json").read_text())
    content["precision"] |= {"requested": "fp16", "base": "fp16"}
    twin.with_name("net.fp16.onnx.json").write_text(json.dumps(content))
    pair = ("benchmark", engine, twin, "--shape", "33x40", *quick)
    (found,) = json.loads(call(*pair, "--json").out)["int8_and_fp16"]
    assert (found["int8"], found["fp16"]) == (engine.name, twin.name)
    assert f"{engine.name} takes {found['ratio']['median']:.2f}x the time of {twin.name}" in found["text"]
    assert f"{engine.name} takes " in call(*pair).out

    sidecar = engine.with_name("net.int8.onnx.json")
    for file, kind in ((engine, "engine"), (model, "ONNX model"), (ranges, "ranges"), (sidecar, "sidecar")):
        assert json.loads(call("inspect", file, "--json").out)["kind"] == kind
    assert "image: FLOAT [batch,3,height,width]" in call("inspect", model).out
    facts = json.loads(call("inspect", checkpoint_file("fcn8s"), "--json").out)
    assert (facts["variant"], facts["num_classes"]) == ("fcn8s", 5)

    facts = json.loads(call("inspect", engine, "--shape", "2x33x40", "--json").out)
    assert (facts["shape"], facts["layers"][0]["output"]) == ([2, 33, 40], [2, 4, 33, 40])
    assert "layers, for images of 2x33x40" in call("inspect", engine, "--shape", "2x33x40").out
    assert "conv3_1/Relu" in call("inspect", ranges).out
    assert "score_fr.weight" in call("inspect", checkpoint_file("fcn8s")).out
    assert "leave --shape out" in call("inspect", ranges, "--shape", "33x40", code=2).err


def test_build_engine_calibrates_by_itself(call, exported, photo_folder, tmp_path):
    engine = tmp_path / "net.onnx"
    call(
        *("build-engine", exported("fcn8s"), "--int8", "--calib-data", photo_folder, "--max-images", 3),
        *("--calib-size", "32x48", "--calib-method", "percentile", "-o", engine),
    )
    source = json.loads(engine.with_name("net.onnx.json").read_text())["source"]
    assert source["calibration"]["size"] == [32, 48]
    assert source["calibration"]["count"] == 3


def test_random_calibration_is_only_on_demand_and_on_record(call, exported, tmp_path):
    ranges = tmp_path / "ranges.json"
    call("calibrate", exported("fcn8s"), "-o", ranges, code=2)
    call("calibrate", exported("fcn8s"), "--random-calibration", "-o", ranges, code=2)
    assert not ranges.exists()
    arguments = ("--random-calibration", "--calib-size", "24x32", "--max-images", 2)
    call("calibrate", exported("fcn8s"), *arguments, "-o", ranges)
    assert json.loads(ranges.read_text())["data"]["random"] is True


def test_ranges_are_written_to_json_only(call, exported, photo_folder, tmp_path):
    said = call("calibrate", exported("fcn8s"), "--calib-data", photo_folder, "-o", tmp_path / "ranges.txt", code=2)
    assert "a name that ends in .json" in said.err
    assert not list(tmp_path.iterdir())


def test_a_failed_verification_exits_3_and_says_by_how_much(call, exported, photo_folder, tmp_path):
    engine = tmp_path / "net.onnx"
    call("build-engine", exported("fcn16s"), "-o", engine)
    said = call("verify", engine, "--reference", exported("fcn8s"), "--data", photo_folder, "--json", code=3)
    assert json.loads(said.out)["gate"]["passed"] is False
    assert "required 99.99%" in said.err


def test_verify_holds_an_engine_against_the_gates_asked_for(call, exported, ranges_file, photo_folder, tmp_path):
    engine = tmp_path / "net.int8.onnx"
    call("build-engine", exported("fcn8s"), "--int8", "--ranges", ranges_file("fcn8s"), "--io", "tensor", "-o", engine)
    verify = ("verify", engine, "--reference", exported("fcn8s"), "--data", photo_folder)
    said = call(*verify, "--gate", "agreement>=10%", "--gate", "int8: error <= 1000")
    assert said.out.startswith("passed:")
    assert "% (95% interval " in said.out
    said = call(*verify, "--gate", "agreement>=100%", "--json", code=3)
    report = json.loads(said.out)
    assert report["gate"]["criteria"] == ["agreement>=100%"]
    assert report["agreement_low"] < report["agreement"] < report["agreement_high"]
    assert "required 100%" in said.err


def test_one_image_has_no_interval(call, exported, checkpoint_file, photo_folder):
    verify = ("verify", exported("fcn8s"), "--weights", checkpoint_file("fcn8s"), "--data", photo_folder)
    said = call(*verify, "--max-images", 1)
    assert "agreement 100.000% (one image: no interval), error" in said.out
    assert json.loads(call(*verify, "--max-images", 1, "--json").out)["agreement_low"] is None


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("agreement>=98", "write agreement>=98%"),
        ("agreement<=98%", "expected agreement>=98%"),
        ("int8:agreement>=98%", "expected fp32"),
        ("miou_drop<=0.3", "evaluate measures the drop, with --labels and --reference"),
        ("error<=1e-3", "--io tensor"),
    ],
)
def test_verify_refuses_gates_it_cannot_judge(call, exported, photo_folder, tmp_path, gate, message):
    engine = tmp_path / "net.onnx"
    call("build-engine", exported("fcn8s"), "-o", engine)
    verify = ("verify", engine, "--reference", exported("fcn8s"), "--data", photo_folder)
    said = call(*verify, "--gate", gate, code=2)
    assert message in " ".join(said.err.split())
    assert "verifying" not in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--int8",), "--calib-data or --ranges"),
        (("--int8", "--fp32"), "more than one precision"),
        (("--fp16",), "FP16"),
        (("--workspace", 5), "options of TensorRT"),
        (("--log", "x.log"), "a log is for TensorRT's builders"),
        (("--twin",), "beside an INT8 one"),
        (("--ranges", "r.json"), "ranges are for INT8, FP8 and FP16"),
        (("--min-shape", "8x8"), "do not make profiles"),
        (("--backend", "tensorrt-rtx"), "ends in .engine or .plan"),
        (("--int8", "--ranges", "r.json", "--calib-data", "d"), "got both"),
        (("--fp32", "--calib-data", "d"), "calibration is for INT8"),
        (("--int8", "--calib-method", "magic", "--ranges", "r.json"), "is not one of 'minmax', 'percentile'"),
        (("--calib-method", "minmax"), "calibration is for INT8"),
        (("--no-bias-correction",), "biases are corrected in INT8"),
        (("--weight-rounding", "nearest"), "weights are rounded in INT8"),
        (("--no-winograd", "--backend", "simulation"), "--no-winograd for simulation"),
        (("--tune", "64x64", "--backend", "simulation"), "--tune for simulation"),
        (("--tune", "64x64", "--no-winograd"), "--tune conflicts with --no-winograd and --precision-map"),
        (("--threads", 2), "threads are for calibrating and tuning"),
        (("--int8", "--ranges", "r.json", "--max-images", 3), "used as it is"),
        (("--backend", "onnxruntime", "-o", "x.engine"), "ends in .onnx"),
        (("--io", "video"), "Invalid value for '--io'"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(call, exported, tmp_path, arguments, message):
    output = () if "-o" in arguments else ("-o", tmp_path / "engine.onnx")
    assert message in call("build-engine", exported("fcn8s"), *arguments, *output, code=2).err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["0x5x5", "5", "ax5", "1x2x3x4", "5x"])
def test_bad_shapes_are_usage_errors(call, value):
    assert "shape" in call("benchmark", "x.onnx", "--shape", value, code=2).err


def test_ranges_of_another_model_exit_6(call, exported, ranges_file, tmp_path):
    call(
        "build-engine",
        exported("fcn32s"),
        "--int8",
        "--ranges",
        ranges_file("fcn8s"),
        "-o",
        tmp_path / "x.onnx",
        code=6,
    )


def test_labels_of_a_built_engine_are_those_of_the_model(call, exported, photos, tmp_path):
    from fcn_deploy.runtime import Segmenter

    engine = tmp_path / "net.onnx"
    call("build-engine", exported("fcn32s"), "-o", engine)
    with Segmenter(engine) as built, Segmenter(exported("fcn32s")) as model:
        for image in photos[:3]:
            np.testing.assert_array_equal(built(image), model.logits(image).argmax(0))
