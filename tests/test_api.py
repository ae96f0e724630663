"""The public names of the package: lazy, documented, and used with strings for paths."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fcn_deploy as fd

FUNCTIONS = [name for name in fd.__all__ if inspect.isfunction(getattr(fd, name))]


def test_importing_the_package_imports_no_third_party_library():
    heavy = ("numpy", "torch", "onnx", "onnxruntime", "PIL", "click", "rich")
    code = f"import fcn_deploy, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there_and_listed():
    assert set(fd._PUBLIC) == set(fd.__all__) - {"__version__"}
    assert dir(fd) == sorted(fd.__all__)
    for name in fd.__all__:
        assert getattr(fd, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fd.no_such_name


def test_no_module_hides_a_public_function():
    modules = {path.stem for path in Path(fd.__file__).parent.iterdir()}
    assert FUNCTIONS
    assert not modules & set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_documents_each_parameter_and_is_typed(name):
    function = getattr(fd, name)
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
        assert f"\n        {parameter.name}: " in function.__doc__ or f"{parameter.name}: " in function.__doc__, (
            parameter
        )
    assert signature.return_annotation is not inspect.Signature.empty


def test_the_functions_go_all_the_way_with_strings_and_objects(checkpoint_file, photo_folder, tmp_path):
    weights, images = str(checkpoint_file("fcn8s")), str(photo_folder)
    model = fd.export(weights, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255, simplify=False)
    assert model.error <= 1e-4
    ranges = fd.calibrate(model, images, max_images=3)
    engine = fd.build_engine(model, precision="int8", ranges=ranges)
    assert len(repr(engine)) < 200
    assert "\n" not in repr(engine)
    check = fd.verify(engine, model, images, max_images=2, gate="agreement>=1%")
    assert check.passed
    assert 0 <= check.interval[0] <= check.agreement <= check.interval[1] <= 1
    times = fd.benchmark([engine, model], shape="32x48", warmup=0, duration=0, iterations=1)
    assert len(times.timings) == 2
    written = fd.predict(engine, images, tmp_path / "out", save=("panel",))
    assert len(written.files) == 10
    assert not list(tmp_path.glob("*.onnx"))


def test_what_is_saved_is_loaded_again(exported, ranges_file, tmp_path):
    model, ranges = fd.load_exported(str(exported("fcn8s"))), fd.load_ranges(str(ranges_file("fcn8s")))
    engine = fd.build_engine(model, precision="int8", ranges=ranges, output=tmp_path / "net.onnx")
    loaded = fd.load_engine(str(tmp_path / "net.onnx"))
    assert loaded.data == engine.data
    assert loaded.sidecar == engine.sidecar


def test_errors_name_parameters_not_flags(tmp_path):
    with pytest.raises(fd.UsageError, match="`calib_data` or `ranges`"):
        fd.build_engine(_model(tmp_path), precision="int8")
    with pytest.raises(fd.UsageError, match="`reference` or `weights`"):
        fd.verify("engine.onnx", data="images")
    with pytest.raises(fd.InputError, match=r"cannot read .*none\.pth"):
        fd.deploy(tmp_path / "none.pth", tmp_path, tmp_path / "out")


def _model(folder):
    """An exported model of one convolution."""
    import onnx
    from onnx import helper

    from fcn_deploy.artifacts.palette import default_palette

    shapes = [("image", ["batch", 3, "height", "width"]), ("logits", ["batch", 2, "height", "width"])]
    image, logits = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes)
    weights = helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 3, 1, 1], [0.5] * 6)
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"], name="conv")]
    graph = helper.make_graph(nodes, "net", [image], [logits], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    spec = fd.ModelSpec("net", 8, 1.0, 2, ("a", "b"), default_palette(2))
    helper.set_model_props(model, {"fcn_deploy.spec": spec.dumps()})
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"
