import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import CheckpointInfo, ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.models.adapter import AdaptedNet
from fcn_deploy.onnx_export.pooling import Pooling, adaptive_windows, maximum, mean, plain_windows
from fcn_deploy.onnx_export.sizes import int_keeps_symbols
from fcn_deploy.onnx_export.tracing import ExportConfig, export_onnx
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.workflows.exporting import export
from tests.support import custom_nets

SIZE, CELLS = st.integers(1, 40), st.integers(1, 12)
SPEC = ModelSpec(
    "net", 1, 1.0, 5, tuple("abcde"), default_palette(5), model="nets:net", checkpoint=CheckpointInfo("0" * 64, "own")
)


def _maps(*sizes):
    return torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(sum(sizes)))


def _differ(found, expected, maps):
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / (maps.max() - maps.min()).clamp(min=1e-6))


@settings(max_examples=200, deadline=None)
@given(height=SIZE, width=SIZE, rows=CELLS, columns=CELLS)
def test_adaptive_windows_are_those_of_pytorch_for_fewer_and_for_more_cells_than_pixels(height, width, rows, columns):
    maps = _maps(height, width)
    windows = adaptive_windows(height, rows), adaptive_windows(width, columns)
    assert _differ(mean(maps, *windows), F.adaptive_avg_pool2d(maps, (rows, columns)), maps) <= 1e-6
    assert torch.equal(maximum(maps, *windows), F.adaptive_max_pool2d(maps, (rows, columns)))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), ceil_mode=st.booleans(), counts_padding=st.booleans())
def test_plain_windows_are_those_of_pytorch(data, ceil_mode, counts_padding):
    sizes = data.draw(st.tuples(SIZE, SIZE))
    kernel = [data.draw(st.integers(1, size)) for size in sizes]
    stride = [data.draw(st.integers(1, 9)) for _ in sizes]
    padding = [data.draw(st.integers(0, extent // 2)) for extent in kernel]
    maps = _maps(*sizes)
    windows = [
        plain_windows(*axis, ceil_mode=ceil_mode, counts_padding=counts_padding)
        for axis in zip(sizes, kernel, stride, padding, strict=True)
    ]
    expected = F.avg_pool2d(maps, kernel, stride, padding, ceil_mode, counts_padding)
    assert _differ(mean(maps, *windows), expected, maps) <= 1e-6
    assert torch.equal(maximum(maps, *windows), F.max_pool2d(maps, kernel, stride, padding, 1, ceil_mode))


@pytest.mark.parametrize(
    "pool",
    [
        lambda maps: F.adaptive_avg_pool2d(maps, 3),
        lambda maps: F.adaptive_avg_pool2d(maps, (None, 1)),
        lambda maps: F.adaptive_avg_pool2d(maps, (5, 2)),
        lambda maps: F.adaptive_max_pool2d(maps, 1),
        lambda maps: F.adaptive_max_pool2d(maps, (4, None)),
        lambda maps: F.adaptive_avg_pool1d(maps.flatten(2), 7),
        lambda maps: F.adaptive_max_pool1d(maps.flatten(2), 7),
        lambda maps: F.interpolate(maps, (4, 9), mode="area"),
        lambda maps: F.interpolate(maps, scale_factor=(0.7, 1.5), mode="area"),
        lambda maps: F.interpolate(maps, scale_factor=0.7, mode="bilinear", recompute_scale_factor=True),
        lambda maps: F.avg_pool2d(maps, 3, 2, padding=1),
        lambda maps: F.max_pool2d(maps, (2, 3), ceil_mode=True),
        lambda maps: F.avg_pool2d(maps, 3, divisor_override=2),
        lambda maps: F.avg_pool2d(maps, 4, 3, 1, ceil_mode=True, divisor_override=2),
        lambda maps: F.lp_pool2d(maps, 2, 3, stride=2),
        lambda maps: F.max_pool1d(maps.flatten(2), 4, 3, padding=1, dilation=2),
        lambda maps: F.avg_pool1d(maps.flatten(2), 4, 3, padding=2, count_include_pad=False),
    ],
)
def test_calls_of_pytorch_give_the_same_while_the_replacements_are_active(pool):
    maps = _maps(10, 13)
    with Pooling():
        found = pool(maps)
    assert _differ(found, pool(maps), maps) <= 1e-6


@pytest.fixture(scope="module")
def exports():
    """The net of a class, and a function that runs its export on an image."""
    made = {}

    def exported(kind):
        if kind not in made:
            net = AdaptedNet(custom_nets.trained(kind())).eval()
            proto = ir.to_proto(export_onnx(net, SPEC)[0])
            made[kind] = net, proto, OnnxRuntimeBackend(proto.SerializeToString())
        return made[kind]

    return exported


@pytest.mark.parametrize("kind", [custom_nets.PyramidPooling, custom_nets.PoolBySize, custom_nets.WidePools])
@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 2), height=st.integers(1, 400), width=st.integers(1, 400))
def test_an_export_pools_as_pytorch_does_at_every_size(exports, kind, batch, height, width):
    _same_as_pytorch(exports(kind), batch, height, width, smallest=3 if kind is custom_nets.PoolBySize else 1)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(height=st.integers(5, 300), width=st.integers(3, 300))
def test_an_export_computes_kernels_that_are_numbers_made_of_the_size(exports, height, width):
    _same_as_pytorch(exports(custom_nets.PoolByComputedKernel), 1, height, width)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 2), height=st.integers(3, 200), width=st.integers(3, 200))
def test_an_export_rounds_sizes_and_pools_by_functions_that_few_nets_use(exports, batch, height, width):
    _same_as_pytorch(exports(custom_nets.PoolByOtherFunctions), batch, height, width)


def _same_as_pytorch(exported, batch, height, width, smallest=1):
    net, _, backend = exported
    image = np.random.default_rng(height).normal(size=(batch, 3, max(height, smallest), max(width, smallest)))
    image = image.astype(np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(image)).numpy()
    found = backend.infer({"image": image})["logits"]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * max(np.ptp(expected), 1e-3)


def test_global_pooling_by_the_size_is_a_mean_and_a_maximum(exports):
    operators = [node.op_type for node in exports(custom_nets.PoolBySize)[1].graph.node]
    assert "ReduceMean" in operators
    assert "ReduceMax" in operators
    assert not {"AveragePool", "MaxPool", "Gather"} & set(operators)


@pytest.mark.parametrize("kind", [custom_nets.PyramidPooling, custom_nets.WidePools])
def test_an_export_states_no_shape_that_holds_for_one_size_only(exports, kind):
    proto = exports(kind)[1]
    computed = {name for node in proto.graph.node for name in node.output}
    shapes = [value.name for value in proto.graph.value_info if value.type.tensor_type.HasField("shape")]
    assert computed & set(shapes) == set()
    onnx.checker.check_model(proto, full_check=True)


def test_adaptive_max_pooling_with_indices_is_refused_and_the_message_names_the_line():
    net = AdaptedNet(custom_nets.trained(custom_nets.PoolIndices())).eval()
    with pytest.raises(InputError, match=r"indices .*at custom_nets\.py:\d+ in net: maxima, indices = F\.adaptive"):
        export_onnx(net, SPEC)


def test_a_size_that_becomes_a_number_is_refused_and_the_message_names_the_line(tmp_path):
    torch.save(custom_nets.trained(custom_nets.Rounding()).state_dict(), tmp_path / "w.pth")
    message = r"a number of a size.*custom_nets\.py:\d+ in net: return .*float\(y\.shape.*`shape`"
    with pytest.raises(InputError, match=message):
        export(tmp_path / "w.pth", model="tests.support.custom_nets:Rounding", simplify=False)


def test_int_of_a_size_stays_a_symbol_in_the_code_of_a_net_for_as_long_as_it_is_traced():
    net = custom_nets.PoolByComputedKernel()
    with int_keeps_symbols(net):
        replaced = vars(custom_nets)["int"]
        assert (replaced("7"), replaced(2.9), replaced("11", base=2)) == (7, 2, 3)
        assert isinstance(3, replaced)
        assert not isinstance(3.0, replaced)
        assert issubclass(bool, replaced)
    assert "int" not in vars(custom_nets)


def test_for_a_fixed_shape_cells_that_divide_the_map_are_pooled_by_a_kernel():
    class Halves(custom_nets.PooledNet):
        def context(self, y):
            return [F.adaptive_avg_pool2d(y, 2)]

    net = AdaptedNet(custom_nets.trained(Halves(2, 2))).eval()
    model, _ = export_onnx(net, SPEC, ExportConfig(shape=ImageShape(1, 40, 48)))
    assert "AveragePool" in [node.op_type for node in model.graph]
