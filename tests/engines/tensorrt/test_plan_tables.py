"""What the builder of TensorRT-RTX makes of our graphs: kernels and what they move, by the table in its log."""

import pytest

from fcn_deploy.calibration.observer import observe
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.demo import CALIBRATION_SEEDS, checkpoint_path, write_scenes
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.tensorrt.builder import build_tensorrt
from fcn_deploy.engines.tensorrt.traffic import traffic_of
from fcn_deploy.errors import DependencyError
from fcn_deploy.graph.model import load_exported
from fcn_deploy.runtime.tensorrt.flavor import find_flavor
from fcn_deploy.workflows.exporting import export

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is for Linux and Windows on x86-64")

RTX = find_flavor("tensorrt-rtx")


def no_gpus():
    raise DependencyError("no NVIDIA driver was found", got="a test", fix="none")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo net, and its ranges."""
    folder = tmp_path_factory.mktemp("demo")
    export(checkpoint_path(), output=folder / "demo.onnx")
    model = load_exported(folder / "demo.onnx")
    write_scenes(folder, CALIBRATION_SEEDS[:2], (64, 96))
    return model, observe(model, ImageFolder.open(folder / "images"))


def traffic(net, precision):
    model, ranges = net
    used = ranges if precision == "int8" else None
    return traffic_of(build_tensorrt(RTX, model, BuildConfig(precision), None, used, gpus=no_gpus).sidecar.plan)


def bytes_of(found, reads):
    return sorted({round(moved, 1) for moved in found.bytes_per_element(reads=reads).values()})


def check_int8(found):
    """No INT8 convolution writes FP32, and a kernel of its own quantises its result: 2 + 2 + 1 bytes."""
    assert found.writes("int8") == {"fp16": 14}
    assert set(found.bytes_per_element(reads="int8").values()) == {5, 6}  # 6: fc7, whose result stays FP16
    assert found.second_copies == 0


def test_the_demo_net(demo):
    fp16, int8 = (traffic(demo, precision) for precision in ("fp16", "int8"))
    assert (len(fp16.steps), fp16.reformats) == (31, 3)
    assert (len(int8.steps), int8.reformats) == (48, 3)
    assert bytes_of(fp16, "fp16")[0] == 2
    check_int8(int8)
    # ArgMax comes before the last crop: no transposed copy of the logits.
    kernels = [step.layer.kernel for step in fp16.steps]
    assert not any("Tran" in kernel and "Slic" in kernel for kernel in kernels)


@pytest.mark.slow
def test_fcn8s_at_full_width(tmp_path, photo_folder):
    import torch

    from fcn_deploy.models.fcn import FCN

    torch.manual_seed(0)
    torch.save(FCN(8, 21).state_dict(), tmp_path / "net.pth")
    export(tmp_path / "net.pth", output=tmp_path / "net.onnx")
    model = load_exported(tmp_path / "net.onnx")
    net = model, observe(model, ImageFolder.open(photo_folder))
    fp32, fp16, int8 = (traffic(net, precision) for precision in ("fp32", "fp16", "int8"))
    assert [len(each.steps) for each in (fp32, fp16, int8)] == [31, 32, 48]
    assert [each.second_copies for each in (fp32, fp16, int8)] == [0, 0, 0]
    assert (bytes_of(fp32, "fp32")[0], bytes_of(fp16, "fp16")[0]) == (4, 2)
    check_int8(int8)
