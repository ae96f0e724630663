"""The receptive field computed from graphs, against what nets do."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.geometry import PAPER, Geometry, Padding
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.receptive_field import ReceptiveField
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.models import FCN
from fcn_deploy.models.adapter import AdaptedNet
from fcn_deploy.onnx_export.config import ExportConfig
from fcn_deploy.onnx_export.tracing import export_onnx
from fcn_deploy.receptive_field import receptive_field
from fcn_deploy.runtime.tiling import Tiling
from tests.support import custom_nets

CHANNELS = 3


class Graph:
    """An ONNX graph from `image` to `logits`, written node by node."""

    def __init__(self, height="height", width="width"):
        self.nodes, self.constants, self.last = [], [], "image"
        self.sizes = [height, width]

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, operator, *inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, list(inputs) or [self.last], [output], f"{operator}_{output}", **attributes)
        )
        self.last = output
        return output

    def weights(self, *shape):
        random = np.random.default_rng(len(self.nodes))
        return self.constant((random.uniform(0.1, 1, shape) / np.prod(shape[1:])).astype(np.float32))

    def size(self, of="image"):
        return self.add("Shape", of, start=2)

    def to_size_of_image(self):
        scores, size = self.last, self.size()
        return self.add("Slice", scores, self.constant([0, 0]), size, self.constant([2, 3]))

    def model(self):
        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Identity", [self.last], ["logits"], "end")],
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *self.sizes])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "c", *self.sizes])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def field_of(graph, **options):
    return receptive_field(parse(graph.model()), **options)


def session(data):
    opened = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda image: opened.run(None, {"image": image})[0]


def check_tiles(run, field, size, tile):
    """Runs an image as a whole and in tiles; images travel as pixels in the last axis, as they do in the runtime."""
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)

    def net(images):
        return run(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)

    whole = net(image)
    np.testing.assert_allclose(Tiling.of(tile, field).run(net, image), whole, atol=1e-5 * np.ptp(whole))


@st.composite
def chains(draw):
    """A chain of convolutions and poolings, then an upsampling and a crop; and the product of the strides."""
    graph, total = Graph(), 1
    for _ in range(draw(st.integers(1, 4))):
        stride = draw(st.sampled_from([1, 1, 2, 3] if total <= 4 else [1]))
        kind = draw(st.sampled_from(["Conv", "MaxPool", "AveragePool"]))
        kernel = [draw(st.integers(stride, stride + 3)) for _ in "yx"]
        dilation = draw(st.integers(1, 2)) if kind == "Conv" else 1
        ends = [(size - 1) * dilation for size in kernel]
        begins = [draw(st.integers(0, size - 1)) for size in kernel]
        pads = begins + [max(0, end - begin) for begin, end in zip(begins, ends, strict=True)]
        if kind != "Conv" and max(pads[0] + pads[2], pads[1] + pads[3]) >= 2 * min(kernel):
            pads = [0, 0, kernel[0] - 1, kernel[1] - 1]
        shared = {"kernel_shape": kernel, "strides": [stride] * 2, "pads": pads}
        if kind == "Conv":
            graph.add(
                "Conv", graph.last, graph.weights(CHANNELS, CHANNELS, *kernel), dilations=[dilation] * 2, **shared
            )
        else:
            graph.add(kind, **shared)
        total *= stride
    kernel = 2 * total + total % 2
    padding = (kernel - total) // 2
    weights = graph.weights(CHANNELS, CHANNELS, kernel, kernel)
    graph.add("ConvTranspose", graph.last, weights, strides=[total] * 2, pads=[padding] * 4)
    graph.to_size_of_image()
    return graph, total


@settings(max_examples=60, deadline=None)
@given(chains(), st.tuples(st.integers(20, 90), st.integers(20, 90)), st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_tiles_with_their_receptive_field_around_them_give_what_the_whole_image_gives(chain, size, tile):
    graph, total = chain
    field = field_of(graph)
    assert field.alignment == total
    assert field.any_size
    check_tiles(session(graph.model()), field, size, tile)


@settings(max_examples=30, deadline=None)
@given(chains(), st.integers(0, 59), st.integers(0, 59))
def test_logits_do_not_depend_on_pixels_outside_the_receptive_field(chain, row, column):
    graph, _ = chain
    field, run = field_of(graph), session(graph.model())
    image = np.zeros((1, 3, 60, 60), np.float32)
    changed = image.copy()
    changed[:, :, row, column] = 1
    rows, columns = np.nonzero((run(image) != run(changed)).any((0, 1)))
    assert (rows - row <= field.top).all()
    assert (row - rows <= field.bottom).all()
    assert (columns - column <= field.left).all()
    assert (column - columns <= field.right).all()


def test_the_receptive_field_of_convolutions_is_exact():
    graph = Graph()
    graph.add("Conv", "image", graph.weights(3, 3, 3, 5), pads=[1, 2, 1, 2])
    graph.add("Relu")
    graph.add("Conv", graph.last, graph.weights(3, 3, 3, 1), dilations=[2, 1], pads=[0, 0, 4, 0])
    assert field_of(graph) == ReceptiveField(top=1, bottom=5, left=2, right=2, alignment=1)


# Nets


def spec(padding=None, model=None):
    names = tuple(f"c{index}" for index in range(custom_nets.CLASSES))
    own = {"stride": None, "width": None, "geometry": None, "model": "m:n", "padding": padding} if model else {}
    return ModelSpec(**{"variant": "net", "stride": 8, "width": 1.0, "num_classes": custom_nets.CLASSES,
                        "classes": names, "palette": default_palette(custom_nets.CLASSES), **own})  # fmt: skip


def exported(net, padding=None, shape=None):
    wrapped = AdaptedNet(custom_nets.trained(net), padding).eval()
    model, _ = export_onnx(wrapped, spec(padding, model=True), ExportConfig(shape=shape))
    return serialize(model), ModelSpec.loads(model.metadata_props["fcn_deploy.spec"])


# By hand, from the strides and kernels of VGG16 with a 1x1 fc6: element i of pool5 reads pixels 32i - 90 to 32i + 121.
# An element of 32s's deconvolution (kernel 64, stride 32, padding 16) is written by those at (i - 47) / 32 to
# (i + 16) / 32, so it reads from i - 47 - 90 to i + 16 + 121.
@pytest.mark.parametrize(("stride", "geometry", "reach"), [(32, Geometry(), 137), (8, PAPER, 245)])
def test_the_receptive_field_of_the_published_nets_is_the_one_found_by_hand(stride, geometry, reach):
    net = FCN(stride, custom_nets.CLASSES, 0.0625, geometry).eval()
    model, _ = export_onnx(net, spec())
    field = receptive_field(parse(serialize(model)))
    assert max(field.top, field.bottom, field.left, field.right) == reach
    assert (field.alignment, field.any_size) == (32, True)


def test_a_net_that_resizes_to_the_size_of_the_image_has_a_receptive_field_at_multiples_of_its_stride():
    data, found = exported(custom_nets.ResNetFCN())
    field = found.receptive_field
    assert not field.any_size
    assert field.alignment == 8
    check_tiles(session(data), field, (field.alignment * 20, field.alignment * 25), (48, 64))


@pytest.mark.parametrize("mode", ["edge", "zero"])
def test_a_net_that_pads_has_a_receptive_field_at_every_size(mode):
    data, found = exported(custom_nets.UNet(), Padding(8, mode))
    assert found.receptive_field.any_size
    assert found.receptive_field.alignment == 8
    check_tiles(session(data), found.receptive_field, (131, 157), (40, 24))


def test_a_net_that_mirrors_has_no_receptive_field():
    _, found = exported(custom_nets.UNet(), Padding(8, "reflect"))
    assert found.receptive_field is None


def test_a_net_of_depthwise_layers_has_a_receptive_field():
    data, found = exported(custom_nets.Depthwise())
    assert found.receptive_field.alignment == 4
    check_tiles(session(data), found.receptive_field, (77, 103), (16, 20))


def test_a_net_for_one_size_has_a_receptive_field():
    _, found = exported(custom_nets.Depthwise(), shape=ImageShape(1, 64, 96))
    assert found.receptive_field.alignment == 4
    assert not found.receptive_field.any_size


class Shuffled(torch.nn.Module):
    """Shuffles channels, as ShuffleNet does, and goes through channels last, as ConvNeXt does."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.mix = torch.nn.Linear(8, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.last = torch.nn.Conv2d(8, custom_nets.CLASSES, 5, padding=2)

    def forward(self, x):
        y = self.first(x)
        batch, _, height, width = y.shape
        y = y.view(batch, 2, 4, height, width).transpose(1, 2).reshape(batch, 8, height, width)
        y = self.norm(self.mix(y.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.last(y).softmax(1)


def test_rows_and_columns_are_followed_through_transposes_and_reshapes():
    data, found = exported(Shuffled())
    assert found.receptive_field == ReceptiveField(3, 3, 3, 3, alignment=1)
    check_tiles(session(data), found.receptive_field, (31, 43), (10, 10))


class Squeezed(torch.nn.Module):
    """Weighs channels by their means over the image, as squeeze-and-excitation does."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, custom_nets.CLASSES, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return y * y.mean((2, 3), keepdim=True).sigmoid()


def test_a_net_that_sees_the_whole_image_is_exported_without_a_receptive_field(caplog):
    caplog.set_level("DEBUG", "fcn_deploy")
    _, found = exported(Squeezed())
    assert found.receptive_field is None
    assert "cannot be run in tiles; got ReduceMean" in caplog.text


# What cannot be run in tiles


def refused(graph):
    with pytest.raises(InputError, match="the net cannot be run in tiles") as caught:
        field_of(graph)
    return caught.value.got


def test_pooling_over_the_image_is_refused():
    graph = Graph()
    pooled = graph.add("GlobalAveragePool")
    graph.add("Add", "image", pooled)
    assert "GlobalAveragePool" in refused(graph)


@pytest.mark.parametrize(("axis", "fits"), [(1, True), (2, False), (-1, False)])
def test_a_softmax_may_work_along_channels_only(axis, fits):
    graph = Graph()
    graph.add("Softmax", axis=axis)
    if fits:
        assert field_of(graph).top == 0
    else:
        assert "works along rows or columns" in refused(graph)


def test_adding_a_value_per_place_is_refused():
    graph = Graph("height", 3840)
    graph.add("Add", "image", graph.constant(np.zeros((1, 3, 1, 3840), np.float32)))
    with pytest.raises(InputError):
        field_of(graph, fixed=ImageShape(1, 64, 3840))


def test_a_crop_to_the_middle_is_refused():
    graph = Graph()
    size = graph.size()
    begins = graph.add("Div", size, graph.constant(np.array([4, 4])))
    graph.add("Slice", "image", begins, size, graph.constant([2, 3]))
    assert "larger images" in refused(graph)


def test_logits_smaller_than_the_image_are_refused():
    graph = Graph()
    graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    assert "of the size of the image" in refused(graph)


def test_aligned_corners_are_refused():
    graph = Graph()
    size = graph.size()
    shape = graph.add("Concat", graph.constant([1, 3]), size, axis=0)
    pooled = graph.add("MaxPool", "image", kernel_shape=[2, 2], strides=[2, 2])
    graph.add("Resize", pooled, "", "", shape, mode="linear", coordinate_transformation_mode="align_corners")
    assert "align_corners" in refused(graph)


# What depends on the size of the image


class Shifted(torch.nn.Module):
    """Shifts its features down and up again: a row that a tile lacks is not one of its own convolutions'."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, custom_nets.CLASSES, 1)

    def forward(self, x):
        pad = torch.nn.functional.pad
        y = self.conv(pad(x, [0, 0, 1, 0])[:, :, :-1])
        return pad(y[:, :, 1:], [0, 0, 0, 1])


def test_a_row_that_is_cut_and_put_back_as_zeros_counts():
    data, found = exported(Shifted())
    assert found.receptive_field.bottom >= 1
    check_tiles(session(data), found.receptive_field, (50, 40), (16, 16))


def test_a_map_that_is_cut_and_filled_up_again_counts():
    graph = Graph()
    graph.add("Conv", "image", graph.weights(3, 3, 3, 3), pads=[1] * 4)
    graph.add("Pad", graph.last, graph.constant([0, 0, -4, -4, 0, 0, -4, -4]))
    graph.add("Pad", graph.last, graph.constant([0, 0, 4, 4, 0, 0, 4, 4]))
    check_tiles(session(graph.model()), field_of(graph), (50, 40), (16, 16))


def test_a_part_of_a_fixed_size_is_refused():
    graph = Graph()
    row = graph.add("Slice", "image", graph.constant([0]), graph.constant([1]), graph.constant([2]))
    graph.add("Add", "image", row)
    assert "larger images" in refused(graph)


@pytest.mark.parametrize("noop", [0, 1])
def test_a_reduction_over_no_axes_is_over_all_unless_noop_with_empty_axes(noop):
    graph = Graph()
    mean = graph.add("ReduceMean", "image", graph.constant(np.array([], np.int64)), noop_with_empty_axes=noop)
    graph.add("Add", "image", mean)
    if noop:
        assert field_of(graph).top == 0
    else:
        refused(graph)


class Scaled(torch.nn.Module):
    """Multiplies by the number of rows."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, custom_nets.CLASSES, 3, padding=1)

    def forward(self, x):
        return self.conv(x) * (x.shape[2] / 64) + x.mean(1, keepdim=True)


def test_a_number_computed_from_the_size_is_refused():
    _, found = exported(Scaled())
    assert found.receptive_field is None


class Centred(torch.nn.Module):
    """Crops to the middle, by an amount that depends on the remainder of the size."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, custom_nets.CLASSES, 4, stride=3, padding=2)

    def forward(self, x):
        y = torch.nn.functional.interpolate(self.conv(x), scale_factor=3.0, mode="nearest")
        top, left = (y.shape[2] - x.shape[2]) // 2, (y.shape[3] - x.shape[3]) // 2
        return y[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def test_a_crop_to_the_middle_at_some_remainders_is_not_for_any_size():
    data, found = exported(Centred())
    field = found.receptive_field
    assert field is None or not field.any_size
    if field is not None:
        check_tiles(session(data), field, (30 * field.alignment, 34 * field.alignment), (24, 24))


class Split(torch.nn.Module):
    """Splits its channels by size."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2 * custom_nets.CLASSES, 3, padding=1)

    def forward(self, x):
        first, second = torch.split(self.conv(x), [custom_nets.CLASSES] * 2, dim=1)
        return first * second.sigmoid()


def test_channels_may_be_split_by_size():
    _, found = exported(Split())
    assert found.receptive_field == ReceptiveField(1, 1, 1, 1, alignment=1)


def test_the_indices_of_maxima_are_not_followed():
    graph = Graph()
    graph.nodes.append(helper.make_node("MaxPool", ["image"], ["most", "places"], "pool", kernel_shape=[1, 1]))
    graph.add("Cast", "places", to=TensorProto.FLOAT)
    assert "do not depend on the image" in refused(graph)


def test_a_net_padded_to_multiples_of_24_has_a_receptive_field():
    data, found = exported(custom_nets.UNet(), Padding(24, "edge"))
    assert found.receptive_field.alignment == 24
    assert found.receptive_field.any_size
    check_tiles(session(data), found.receptive_field, (131, 157), (48, 24))
