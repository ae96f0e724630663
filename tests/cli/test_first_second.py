"""What is wrong with names, options and first bytes is said before a library that runs nets is imported."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.support.bundles import make_bundle

# Runs command lines in one process, and says after each what it printed and which of the libraries it imported.
SCRIPT = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from fcn_deploy.cli.app import run

HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "openvino", "onnxscript", "safetensors")
found = []
for line in json.load(sys.stdin):
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        code = run(line)
    found.append([code, said.getvalue(), [name for name in HEAVY if name in sys.modules]])
print(json.dumps(found))
"""
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
# What no command reads: the first bytes of a pickle and of a protobuf message, so that nothing is wrong with them yet.
PICKLE, ONNX = b"\x80\x02}q\x00.", b"\x08\x0a\x12\x07pytorch"


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """A folder with files that are right at first sight, and files that are plainly wrong."""
    folder = tmp_path_factory.mktemp("field")
    for name, content in {
        "net.pth": PICKLE,
        "net.onnx": ONNX,
        "other.onnx": ONNX + b"2",
        "lfs.pth": LFS,
        "lfs.onnx": LFS,
        "page.pth": b"<!DOCTYPE html><html></html>",
        "page.onnx": b"<!DOCTYPE html><html></html>",
        "empty.pth": b"",
        "empty.onnx": b"",
        "zip.onnx": b"PK\x03\x04" + b"\0" * 30,
        "text.onnx": b"certainly not protobuf",
        "bad.json": b"{",
        "names.csv": b"road,1,2\n",
        "map.txt": b"1=2=3\n",
        "map.json": b'{"layers": {"a": "int4"}}',
        "text.png": b"not a picture",
        "text.mp4": b"not a video",
    }.items():
        (folder / name).write_bytes(content)
    (folder / "sidecar.onnx").write_bytes(ONNX)
    (folder / "sidecar.onnx.json").write_text('{"format": 1}')
    for name in ("nothing", "out", "text", "labels", "images", "few"):
        (folder / name).mkdir()
    (folder / "text" / "readme.txt").write_text("no image")
    random = np.random.default_rng(0)
    for index in range(6):
        photo = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"{index}.png")
        Image.fromarray(photo[..., 0] % 5).save(folder / "labels" / f"{index}.png")
    Image.fromarray(photo).save(folder / "few" / "0.png")
    make_bundle(folder / "bundle")
    make_bundle(folder / "damaged_bundle")
    (folder / "damaged_bundle" / "bundle.json").write_text('{"format": 1}')
    (folder / "damaged").mkdir()
    (folder / "damaged" / "0.png").write_bytes((folder / "few" / "0.png").read_bytes()[:40])
    return folder


EXPORT = "export --weights net.pth -o out/m.onnx "
ADOPT = "adopt net.onnx -o out/m.onnx "
CALIBRATE = "calibrate net.onnx --calib-data images -o out/r.json "
BUILD = "build-engine net.onnx -o out/e.onnx "
PLAN = "build-engine net.onnx -o out/e.engine --backend tensorrt-rtx "
VERIFY = "verify net.onnx --reference other.onnx --data images "
EVALUATE = "evaluate net.onnx --data images --labels labels "
BENCHMARK = "benchmark net.onnx --shape 24x32 "
PREDICT = "predict net.onnx images -o out/p "
SENSITIVITY = "sensitivity net.onnx --data images "
DEPLOY = "deploy --weights net.pth --calib-data images -o out/d "

# By command: the arguments, the exit code, and what the error line says.
MISTAKES = {
    "export": [
        ("export --weights none.pth -o out/m.onnx", 6, "none.pth; got no such file"),
        ("export --weights images -o out/m.onnx", 6, "got a folder"),
        ("export --weights lfs.pth -o out/m.onnx", 6, "Git-LFS pointer"),
        ("export --weights page.pth -o out/m.onnx", 6, "an HTML page"),
        ("export --weights empty.pth -o out/m.onnx", 6, "an empty file"),
        ("export --weights net.pth -o none/m.onnx", 6, "no folder none"),
        ("export --weights net.pth -o out", 2, "suffix does not fit"),
        ("export --weights net.pth -o out/m.engine", 2, "a name that ends in .onnx"),
        ("export --weights net.onnx -o net.onnx", 2, "replace an input"),
        (EXPORT + "--opset 5", 2, "unsupported opset"),
        (EXPORT + "--shape 1x2x3x4", 2, "bad shape"),
        (EXPORT + "--mean 1,2", 2, "three numbers"),
        (EXPORT + "--std 1,0,1", 6, "three positive numbers"),
        (EXPORT + "--scale nan", 6, "a positive number"),
        (EXPORT + "--normalization caffe --mean 1,2,3", 2, "--mean contradicts --normalization"),
        (EXPORT + "--size-divisor 8", 2, "the published nets work at every size"),
        (EXPORT + "--pad-mode zero", 2, "--pad-mode needs a divisor"),
        (EXPORT + "--model nets", 2, "--model does not name a net"),
        (EXPORT + "--model nets:net --variant fcn8s", 2, "--variant is for published nets"),
        (EXPORT + "--model nets:net --at-once", 2, "are for published nets"),
        (EXPORT + "--weights-key=", 2, "--weights-key is empty"),
        (EXPORT + "--class-names none.csv", 6, "none.csv; got no such file"),
        (EXPORT + "--class-names names.csv", 6, "names.csv, line 1: bad colour"),
    ],
    "adopt": [
        ("adopt none.onnx -o out/m.onnx", 6, "none.onnx; got no such file"),
        ("adopt images -o out/m.onnx", 6, "got a folder"),
        ("adopt text.onnx -o out/m.onnx", 6, "is not an ONNX model; got a file of another format"),
        ("adopt lfs.onnx -o out/m.onnx", 6, "Git-LFS pointer"),
        ("adopt page.onnx -o out/m.onnx", 6, "an HTML page"),
        ("adopt empty.onnx -o out/m.onnx", 6, "an empty file"),
        ("adopt zip.onnx -o out/m.onnx", 6, "a zip archive, such as a PyTorch checkpoint"),
        ("adopt net.onnx -o net.onnx", 2, "replace an input"),
        ("adopt net.onnx -o out/m.txt", 2, "suffix does not fit"),
        ("adopt net.onnx -o none/m.onnx", 6, "no folder none"),
        (ADOPT + "--shape 1x2x3x4", 2, "bad shape"),
        (ADOPT + "--logits=", 2, "bad --logits"),
        (ADOPT + "--layout chw", 2, "--layout"),
        (ADOPT + "--mean 1,2", 2, "three numbers"),
        (ADOPT + "--std 1,0,1", 6, "three positive numbers"),
        (ADOPT + "--scale nan", 6, "a positive number"),
        (ADOPT + "--threshold nan", 2, "bad --threshold"),
        (ADOPT + "--normalization caffe --mean 1,2,3", 2, "--mean contradicts --normalization"),
        (ADOPT + "--pad-mode zero", 2, "--pad-mode needs a divisor"),
        (ADOPT + "--size-divisor 1", 2, "size-divisor"),
        (ADOPT + "--class-names none.csv", 6, "none.csv; got no such file"),
        (ADOPT + "--class-names names.csv", 6, "names.csv, line 1: bad colour"),
    ],
    "simplify": [
        ("simplify none.onnx -o out/m.onnx", 6, "got no such file"),
        ("simplify images -o out/m.onnx", 6, "got a folder"),
        ("simplify text.onnx -o out/m.onnx", 6, "is not an ONNX model; got a file of another format"),
        ("simplify lfs.onnx -o out/m.onnx", 6, "Git-LFS pointer"),
        ("simplify page.onnx -o out/m.onnx", 6, "an HTML page"),
        ("simplify empty.onnx -o out/m.onnx", 6, "an empty file"),
        ("simplify zip.onnx -o out/m.onnx", 6, "a zip archive, such as a PyTorch checkpoint"),
        ("simplify net.onnx -o net.onnx", 2, "replace an input"),
        ("simplify net.onnx -o out/m.txt", 2, "suffix does not fit"),
        ("simplify net.onnx -o none/m.onnx", 6, "no folder none"),
    ],
    "calibrate": [
        ("calibrate none.onnx --calib-data images -o out/r.json", 6, "got no such file"),
        ("calibrate text.onnx --calib-data images -o out/r.json", 6, "is not an ONNX model"),
        ("calibrate net.onnx --calib-data none -o out/r.json", 6, "none is not a folder"),
        ("calibrate net.onnx --calib-data net.onnx -o out/r.json", 6, "is not a folder"),
        ("calibrate net.onnx --calib-data nothing -o out/r.json", 6, "nothing has no images"),
        ("calibrate net.onnx --calib-data text -o out/r.json", 6, "text has no images"),
        ("calibrate net.onnx --calib-data damaged -o out/r.json", 6, "damaged/0.png is not an image"),
        ("calibrate net.onnx -o out/r.json", 2, "calibrate needs images"),
        ("calibrate net.onnx --random-calibration -o out/r.json", 2, "needs a size"),
        ("calibrate net.onnx --calib-data images -o out/r.txt", 2, "suffix does not fit"),
        (CALIBRATE + "--random-calibration", 2, "not both"),
        (CALIBRATE + "--calib-size 3", 2, "bad size"),
        (CALIBRATE + "--threads 0", 2, "--threads"),
        (CALIBRATE + "--max-images 0", 2, "--max-images"),
    ],
    "build-engine": [
        ("build-engine none.onnx -o out/e.onnx", 6, "got no such file"),
        ("build-engine text.onnx -o out/e.onnx", 6, "is not an ONNX model"),
        ("build-engine net.onnx -o net.onnx", 2, "replace an input"),
        ("build-engine net.onnx -o out/e.txt", 2, "suffix does not fit"),
        ("build-engine net.onnx -o out/e.engine --backend onnxruntime", 2, "a name that ends in .onnx"),
        ("build-engine net.onnx -o none/e.onnx", 6, "no folder none"),
        (BUILD + "--int8 --fp32", 2, "more than one precision"),
        (BUILD + "--fp16", 2, "do not compute in FP16"),
        (BUILD + "--bf16", 2, "onnxruntime builds no engines in BF16"),
        (BUILD + "--fp8 --calib-data images", 2, "onnxruntime builds no engines in FP8"),
        (BUILD + "--fp8 --calib-data images --backend openvino", 2, "openvino builds no engines in FP8"),
        (BUILD + "--fp8 --backend simulation --ranges bad.json --weight-rounding nearest", 2, "rounded in INT8"),
        (BUILD + "--fp8 --backend simulation --calib-data images --calib-method auto", 2, "are for INT8; got --fp8"),
        (BUILD + "--bf16 --backend simulation --ranges bad.json", 2, "ranges are for INT8, FP8 and FP16; got --bf16"),
        (BUILD + "--bf16 --backend simulation --base fp32", 2, "TensorRT's builders for simulation; got --base"),
        (BUILD + "--tf32", 2, "options of TensorRT's builders for onnxruntime; got --tf32"),
        (BUILD + "--tf32 --backend openvino", 2, "options of TensorRT's builders for openvino; got --tf32"),
        (BUILD + "--tf32 --backend simulation", 2, "options of TensorRT's builders for simulation; got --tf32"),
        (PLAN + "--fp16 --tf32", 2, "TF32 is for what runs in FP32; got --tf32 with --fp16"),
        (PLAN + "--bf16 --compute-capability 7.5", 2, "has what --bf16 needs; got compute capability 7.5"),
        (PLAN + "--fp8 --calib-data images", 2, "has what --fp8 needs; got compute capability 8.0 and newer"),
        (PLAN + "--fp8 --calib-data images --compute-capability 8.6", 2, "got compute capability 8.6; expected 8.9"),
        (BUILD + "--backend openvino --fp16", 2, "do not compute in FP16"),
        (BUILD + "--int8 --calib-data images --base fp16", 2, "FP32; got --base fp16 for onnxruntime"),
        (BUILD + "--backend openvino --base bf16", 2, "only INT8 has another precision as its base"),
        (BUILD + "--backend openvino --int8 --calib-data images --base fp16", 2, "got --base fp16 for openvino"),
        (BUILD + "--backend openvino --tune 24x32", 2, "only ONNX Runtime's kernels can be chosen; got --tune"),
        (BUILD + "--backend openvino --no-winograd", 2, "Winograd's algorithm is for ONNX Runtime"),
        (BUILD + "--backend openvino --workspace 5", 2, "options of TensorRT's builders for openvino"),
        (BUILD + "--backend openvino --log out/l", 2, "a log is for TensorRT"),
        ("build-engine net.onnx -o out/e.engine --backend openvino", 2, "a name that ends in .onnx"),
        (BUILD + "--int8 --calib-data images --ranges bad.json", 2, "got both"),
        (BUILD + "--int8 --calib-data nothing", 6, "nothing has no images"),
        (BUILD + "--int8 --ranges none.json", 6, "none.json; got no such file"),
        (BUILD + "--int8 --ranges bad.json", 6, "bad.json is not JSON"),
        (BUILD + "--int8 --ranges bad.json --threads 2", 2, "threads are for calibrating"),
        (BUILD + "--ranges bad.json", 2, "ranges are for INT8"),
        (BUILD + "--min-shape 8x8", 2, "do not make profiles"),
        (BUILD + "--log out/l", 2, "a log is for TensorRT"),
        (BUILD + "--workspace 5", 2, "options of TensorRT"),
        (BUILD + "--twin", 2, "beside an INT8 one"),
        (BUILD + "--spec-from none.onnx", 6, "none.onnx; got no such file"),
        (BUILD + "--spec-from text.onnx", 6, "text.onnx is not an ONNX model"),
        (BUILD + "--int8 --calib-data images --precision-map none.json", 6, "none.json; got no such file"),
        (BUILD + "--int8 --calib-data images --precision-map map.json", 6, "unknown precisions in map.json"),
        (BUILD + "--int8 --calib-data images --accuracy-budget speed>=2", 2, "expected agreement"),
        (BUILD + "--int8 --calib-data images --label-map 1=2", 2, "--label-map needs labels"),
    ],
    "verify": [
        ("verify none.onnx --reference net.onnx --data images", 6, "cannot read none.onnx; got no such file"),
        ("verify net.onnx --reference none.onnx --data images", 6, "cannot read none.onnx; got no such file"),
        ("verify net.onnx --reference text.onnx --data images", 6, "text.onnx is not an ONNX model"),
        ("verify net.pth --reference net.onnx --data images", 6, "write pytorch: before its path"),
        ("verify net.onnx --weights none.pth --data images", 6, "none.pth; got no such file"),
        ("verify net.onnx --weights lfs.pth --data images", 6, "Git-LFS pointer"),
        ("verify net.onnx --reference net.onnx --data images", 2, "cannot be its own reference"),
        ("verify net.onnx --reference other.onnx --data nothing", 6, "nothing has no images"),
        ("verify net.onnx --data images", 2, "needs one reference"),
        ("verify sidecar.onnx --reference net.onnx --data images", 5, "sidecar.onnx.json"),
        (VERIFY + "--gate agreement<=98%", 2, "expected agreement>=98%"),
        (VERIFY + "--gate int8:agreement>=98%", 2, "expected fp32"),
        (VERIFY + "--gate miou_drop<=0.3", 2, "evaluate measures the drop"),
        (VERIFY + "--threads 0", 2, "--threads"),
        (VERIFY + "--allow-host-code", 2, "--allow-host-code is for TensorRT plans"),
        (VERIFY + "--model nets:net", 2, "no pytorch:CHECKPOINT"),
        (VERIFY + "--provider cpu --device 1", 2, "--device is for TensorRT plans"),
        (VERIFY + "--device-name GPU", 2, "--device-name is for engines of OpenVINO"),
        (VERIFY + "--device-name AUTO", 2, "unknown --device-name; got 'AUTO'"),
    ],
    "evaluate": [
        ("evaluate none.onnx --data images --labels labels", 6, "cannot read none.onnx"),
        ("evaluate text.onnx --data images --labels labels", 6, "is not an ONNX model"),
        ("evaluate net.onnx --data none --labels labels", 6, "none is not a folder"),
        ("evaluate net.onnx --data images --labels none", 6, "none is not a folder"),
        ("evaluate net.onnx --data images --labels nothing", 6, "nothing lacks labels"),
        ("evaluate net.onnx --data labels --labels images", 6, "images and ground truth are exchanged"),
        ("evaluate net.onnx --data images --labels images", 2, "in one folder"),
        ("evaluate pytorch:page.pth --data images --labels labels", 6, "an HTML page"),
        (EVALUATE + "--reference net.onnx", 2, "cannot be its own reference"),
        (EVALUATE + "--reference none.onnx", 6, "cannot read none.onnx"),
        (EVALUATE + "--label-map map.txt", 6, "map.txt, line 1: not a pair"),
        (EVALUATE + "--label-map none", 2, "neither a file nor a map"),
        (EVALUATE + "--batch 0", 2, "--batch"),
    ],
    "benchmark": [
        ("benchmark none.onnx --shape 24x32", 6, "cannot read none.onnx"),
        ("benchmark net.onnx none.onnx --shape 24x32", 6, "cannot read none.onnx"),
        ("benchmark net.onnx text.onnx --shape 24x32", 6, "text.onnx is not an ONNX model"),
        ("benchmark net.onnx pytorch:empty.pth --shape 24x32", 6, "an empty file"),
        ("benchmark net.onnx --shape 3", 2, "bad shape"),
        (BENCHMARK + "--vs none.onnx", 6, "cannot read none.onnx"),
        (BENCHMARK + "--threads 0", 2, "--threads"),
        (BENCHMARK + "--percentile 101", 2, "bad percentiles"),
        (BENCHMARK + "--iterations 0", 2, "--iterations"),
        (BENCHMARK + "--model nets:net", 2, "no pytorch:CHECKPOINT"),
    ],
    "predict": [
        ("predict none.onnx images -o out/p", 6, "cannot read none.onnx"),
        ("predict text.onnx images -o out/p", 6, "is not an ONNX model"),
        ("predict net.onnx none -o out/p", 6, "none names no image"),
        ("predict net.onnx nothing -o out/p", 6, "nothing has no images"),
        ("predict net.onnx text.png -o out/p", 6, "text.png"),
        ("predict net.onnx images -o net.onnx/p", 6, "cannot make the folder net.onnx/p"),
        ("predict net.onnx images few -o out/p", 6, "two inputs would make the same files"),
        ("predict pytorch:lfs.pth images -o out/p", 6, "Git-LFS pointer"),
        (PREDICT + "--save sound", 2, "--save"),
        (PREDICT + "--tile 0x8", 2, "--tile"),
        (PREDICT + "--max-pixels 0", 2, "--max-pixels"),
        (PREDICT + "--threads 0", 2, "--threads"),
        (PREDICT + "--every 0", 2, "--every"),
        (PREDICT + "--max-frames 0", 2, "--max-frames"),
        (PREDICT + "--batch 0", 2, "--batch"),
        (PREDICT + "camera:0", 2, "a camera or a stream goes alone"),
        ("predict net.onnx text.mp4 -o out/p", 6, "text.mp4 is damaged or not a video"),
        ("predict net.onnx camera:x -o out/p", 2, "bad camera; got 'camera:x'"),
        ("predict net.onnx camera:99 -o out/p", 6, "there is no camera:99"),
        ("predict net.onnx rtsp:///x -o out/p", 2, "bad address"),
        ("predict net.onnx rtsp://127.0.0.1:1/x -o out/p", 6, "Connection refused"),
        ("predict net.onnx 0 -o out/p", 6, "name a camera as camera:0"),
    ],
    "sensitivity": [
        ("sensitivity none.onnx --ranges bad.json --data images", 6, "got no such file"),
        ("sensitivity text.onnx --ranges bad.json --data images", 6, "is not an ONNX model"),
        (SENSITIVITY + "--ranges none.json", 6, "none.json; got no such file"),
        (SENSITIVITY + "--ranges bad.json", 6, "bad.json is not JSON"),
        (SENSITIVITY + "--ranges bad.json --plot out/p.bmp", 2, "a name that ends in .svg"),
        (SENSITIVITY + "--ranges bad.json -o none/s.json", 6, "no folder none"),
        (SENSITIVITY + "--ranges bad.json --base fp32", 2, "a base precision is TensorRT's"),
    ],
    "deploy": [
        ("deploy --weights none.pth --calib-data images -o out/d", 6, "none.pth; got no such file"),
        ("deploy --weights lfs.pth --calib-data images -o out/d", 6, "Git-LFS pointer"),
        ("deploy --weights net.pth --calib-data none -o out/d", 6, "none is not a folder"),
        ("deploy --weights net.pth --calib-data nothing -o out/d", 6, "nothing has no images"),
        ("deploy --weights net.pth --calib-data few -o out/d", 6, "too few images"),
        ("deploy --weights net.pth --calib-data images -o net.onnx", 6, "cannot make the folder net.onnx"),
        (DEPLOY + "--int8 --require-speedup 0", 2, "bad --require-speedup; got 0.0; expected a number above 0"),
        (DEPLOY + "--int8 --require-speedup nan", 2, "bad --require-speedup; got nan"),
        (DEPLOY + "--require-speedup 1.2", 2, "got --require-speedup without INT8; fix: add --int8"),
        (DEPLOY + "--int8 --require-speedup 1.2 --iterations 2", 2, "--iterations 2; expected 5 or more"),
        (DEPLOY + "--int8 --bf16", 2, "onnxruntime builds no engines in BF16"),
        ("deploy --weights net.pth -o out/d", 2, "needs a net and images"),
        (DEPLOY + "--calib-method mse", 2, "calibration is for INT8"),
        (DEPLOY + "--labels labels", 2, "labels without their images"),
        (DEPLOY + "--data images --labels nothing", 6, "nothing lacks labels"),
        (DEPLOY + "--data labels --labels images", 6, "images and ground truth are exchanged"),
        (DEPLOY + "--data images --labels labels --label-map map.txt", 6, "map.txt, line 1: not a pair"),
        (DEPLOY + "--gate fp16:agreement>=98%", 2, "expected fp32"),
        (DEPLOY + "--gate error<=1e-3", 2, "--io tensor"),
        (DEPLOY + "--class-names names.csv", 6, "names.csv, line 1: bad colour"),
        (DEPLOY + "--threads 0", 2, "--threads"),
        (DEPLOY + "--bundle", 2, "bundles and profiles are for TensorRT engines; got --bundle for onnxruntime"),
        (DEPLOY + "--opt-shape 8x8", 2, "bundles and profiles are for TensorRT engines"),
        (DEPLOY + "--backend tensorrt --bf16", 2, "FP16 and INT8 for tensorrt; got --bf16"),
        (DEPLOY + "--backend tensorrt --target-cpu vnni", 2, "a target CPU for a GPU's engine"),
        (DEPLOY + "--backend tensorrt --int8 --require-speedup 1.2", 2, "the faster engine is shipped in any case"),
        (DEPLOY + "--backend tensorrt-rtx --opt-shape 8x8", 6, "fits no profile; got 24x32; expected 1x8x8"),
        (DEPLOY + "--backend tensorrt-rtx --min-shape 8x8", 2, "do not make profiles"),
        (DEPLOY + "--backend tensorrt --gate bf16:agreement>=98%", 2, "expected fp16"),
        ("deploy --demo --normalization caffe --mean 1,2,3 -o out/d", 2, "--mean contradicts --normalization"),
    ],
    "finish": [
        ("finish none", 6, "none is not a bundle; got no such file"),
        ("finish net.onnx", 6, "net.onnx is not a bundle; got a file"),
        ("finish images", 6, "images is not a bundle; got no bundle.json"),
        ("finish damaged_bundle", 5, "bundle.json is not the file that bundle.json.sha256 describes"),
        ("finish bundle --shape 8x8", 2, "takes --shape; got 8x8; expected 1x16x24 to 1x64x96"),
        ("finish bundle -o bundle/out", 2, "the engines cannot go into the bundle"),
        ("finish bundle --log bundle/log", 2, "the log cannot go into the bundle"),
        ("finish bundle --backend onnxruntime", 2, "--backend"),
        ("finish bundle --shape 8", 2, "bad size"),
        ("finish bundle --device -1", 2, "--device"),
        ("finish bundle --percentile 101", 2, "bad percentiles"),
        ("finish bundle --iterations 0", 2, "--iterations"),
    ],
    "inspect": [
        ("inspect damaged_bundle/bundle.json", 5, "is not the file that bundle.json.sha256 describes"),
        ("inspect none.onnx", 6, "got no such file"),
        ("inspect images", 6, "got a folder"),
        ("inspect text.onnx", 6, "is not an ONNX model"),
        ("inspect lfs.pth", 6, "Git-LFS pointer"),
        ("inspect page.pth", 6, "an HTML page"),
        ("inspect empty.pth", 6, "an empty file"),
        ("inspect bad.json", 6, "is not JSON"),
        ("inspect text.png", 6, "not of a kind that inspect knows"),
        ("inspect bad.json --shape 8x8", 2, "leave --shape out"),
        ("inspect net.onnx --shape 8", 2, "bad shape"),
    ],
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_said_before_anything_heavy_is_imported(command, field):
    lines = [line.split() for line, _, _ in MISTAKES[command]]
    assert {line[0] for line in lines} == {command}
    before = sorted(field.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        input=json.dumps(lines),
        cwd=field,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (line, wanted, says), (code, said, imported) in zip(MISTAKES[command], json.loads(done.stdout), strict=True):
        said = " ".join(said.split())
        assert (code, says in said, imported) == (wanted, True, []), f"{line}: exit {code}, {imported}, {said}"
        assert "raceback" not in said
    assert sorted(field.rglob("*")) == before
