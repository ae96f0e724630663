import weakref

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.calibration.channel_power import channel_rms
from fcn_deploy.calibration.histogram import HistogramBuilder
from fcn_deploy.calibration.observer import Observer, observe
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.errors import ClosedError, InputError
from fcn_deploy.files import sha256_file
from fcn_deploy.graph.model import ExportedModel, load_exported, serialize
from fcn_deploy.quantization.balance import balance
from fcn_deploy.quantization.selection import quantizable_inputs
from fcn_deploy.runtime import normalize


@pytest.fixture(scope="module")
def model(exported):
    return load_exported(exported("fcn8s"))


@pytest.fixture(scope="module")
def ranges(model, photos):
    return observe(model, iter(photos[:4]), threads=1)


@pytest.fixture(scope="module")
def normalization(model):
    metadata = {entry.key: entry.value for entry in proto_of(model).metadata_props}
    return ModelSpec.loads(metadata[METADATA_KEY]).normalization


def proto_of(model):
    return onnx.load_model_from_string(model.content)


def histograms_of(found):
    return found.to_json()["histograms"]


def with_weight(model, name, change):
    """The model with a change to one of its weights."""
    proto = proto_of(model)
    (initializer,) = (each for each in proto.graph.initializer if each.name == name)
    array = numpy_helper.to_array(initializer).copy()
    change(array)
    initializer.CopyFrom(numpy_helper.from_array(array, name))
    return ExportedModel.parse(proto.SerializeToString())


def fixed(model, batch, height, width):
    """The model with a fixed shape."""
    proto = proto_of(model)
    for value in (*proto.graph.input, *proto.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, (batch, None, height, width), strict=True):
            if size:
                dim.dim_value = size
    return ExportedModel.parse(proto.SerializeToString())


# What it sees


@pytest.mark.parametrize(
    "name", ["conv1_1/Relu", "conv3_3/Relu", "relu7/Relu", "score_fr/Conv", "the sum", "upscore8/ConvTranspose"]
)
def test_a_histogram_is_that_of_the_tensor_as_the_models_output(model, ranges, normalization, photos, name):
    proto = proto_of(model)
    if name == "the sum":  # of score map and skip, which no module makes and only torch has a name for
        sums = [node.output[0] for node in proto.graph.node if node.op_type == "Add"]
        name = next(name for name in sums if name in ranges.histograms)
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64, "h", "w"]))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    builder = HistogramBuilder()
    everything = []
    for photo in photos[:4]:
        (values,) = session.run([name], {"image": normalize(photo[np.newaxis], normalization)})
        builder.add(values)
        everything.append(values.ravel())
    found, wanted = ranges.histograms[name], builder.build()
    assert found.counts.sum() == sum(map(len, everything))
    tolerance = 1e-5 * float(np.ptp(np.concatenate(everything)))
    assert found.min == pytest.approx(wanted.min, abs=tolerance)
    assert found.max == pytest.approx(wanted.max, abs=tolerance)
    assert (found.lo, found.hi, len(found.counts)) == (wanted.lo, wanted.hi, len(wanted.counts))
    # Another number of threads or of outputs may move a value over the edge of its bin, but not further.
    assert np.abs(np.cumsum(found.counts) - np.cumsum(wanted.counts)).max() <= 0.001 * found.counts.sum() + 1


def test_the_image_is_observed_as_the_net_sees_it(ranges, normalization, photos):
    builder = HistogramBuilder()
    for photo in photos[:4]:
        builder.add(normalize(photo[np.newaxis], normalization))
    assert ranges.histograms["image"].to_json() == builder.build().to_json()


def test_values_of_every_image_are_counted(ranges, photos):
    assert ranges.data.count == 4
    assert ranges.histograms["image"].counts.sum() == sum(photo.size for photo in photos[:4])
    padded = sum((-(-h // 8) * 8) * (-(-w // 8) * 8) for h, w, _ in (photo.shape for photo in photos[:4]))
    assert ranges.histograms["upscore8/ConvTranspose"].counts.sum() >= 5 * padded


def test_the_means_are_those_of_what_each_convolution_reads(model, ranges, normalization, photos):
    read = [str(value.name) for value in quantizable_inputs(model.graph)]
    assert list(ranges.means) == read
    assert {"image", "conv1_1/Relu", "pool1/MaxPool", "pool4/MaxPool", "relu7/Relu"} <= set(read)
    assert "pool1/MaxPool" not in ranges.histograms
    proto = proto_of(model)
    names = [name for name in read if name != "image"]
    proto.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "c", "h", "w"]) for name in names
    )
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = {name: [] for name in read}
    for photo in photos[:4]:
        image = normalize(photo[np.newaxis], normalization)
        for name, values in zip(read, [image, *session.run(names, {"image": image})], strict=True):
            pixels[name].append(values[0].reshape(values.shape[1], -1))
    assert len({each.shape[1] for each in pixels["image"]}) > 1, "photos of one size weigh the same"
    for name, found in pixels.items():
        wanted = np.concatenate(found, axis=1).mean(axis=1, dtype=np.float64)
        np.testing.assert_allclose(ranges.means[name], wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_the_order_of_the_images_moves_means_by_rounding_alone(model, ranges, photos):
    other = observe(model, photos[:4][::-1], threads=1)
    for name, mean in ranges.means.items():
        np.testing.assert_allclose(other.means[name], mean, rtol=1e-12, atol=1e-12 * np.abs(mean).max())


def test_the_order_of_the_images_does_not_matter_to_the_histograms(model, ranges, photos):
    other = observe(model, photos[:4][::-1], threads=1)
    assert histograms_of(other) == histograms_of(ranges)
    assert other.data.sha256 != ranges.data.sha256


def test_the_same_images_give_the_same_ranges(model, ranges, photos):
    assert observe(model, photos[:4], threads=1).to_json() == ranges.to_json()


def test_the_ranges_name_the_model_and_the_data(exported, ranges, photos, model):
    assert ranges.model_sha256 == sha256_file(exported("fcn8s"))
    assert len(ranges.data.sha256) == 64
    assert (ranges.data.size, ranges.data.random) == (None, False)
    changed = [photos[0].copy(), *photos[1:4]]
    changed[0][0, 0, 0] ^= 1
    assert observe(model, changed, threads=1).data.sha256 != ranges.data.sha256


def test_images_of_other_shapes_but_the_same_bytes_are_other_data(model):
    image = np.arange(48 * 3, dtype=np.uint8).reshape(6, 8, 3)
    found = [observe(model, [each]).data.sha256 for each in (image, image.reshape(8, 6, 3))]
    assert found[0] != found[1]


def test_what_the_caller_did_is_recorded(model, photos):
    found = observe(model, photos[:1], size=(40, 56), random=True)
    assert (found.data.count, found.data.size, found.data.random) == (1, (40, 56), True)


def test_a_balanced_net_is_observed_as_it_will_be_quantised(model, photos):
    found = observe(model, iter(photos[:4]), balanced_by=photos[:2], threads=1)
    assert set(found.scales) >= {"conv1_1/Relu", "conv3_3/Relu", "relu6/Relu", "relu7/Relu"}
    graph_model = model.copy()
    balance(graph_model.graph, found.scales)
    plain = observe(ExportedModel.parse(serialize(graph_model)), iter(photos[:4]), threads=1)
    assert histograms_of(found) == histograms_of(plain)
    for name, mean in plain.means.items():
        np.testing.assert_array_equal(found.means[name], mean)


def test_balancing_makes_channels_more_alike(model, photos):
    found = observe(model, iter(photos[:4]), balanced_by=photos[:4], threads=1)
    before = channel_rms(model, photos[:4], threads=1)
    for name, scale in found.scales.items():
        alive = before[name] > before[name].max() * 1e-3
        spread = [np.ptp(np.log(rms[alive])) for rms in (before[name], before[name] / scale)]
        assert spread[1] < spread[0]


def test_nothing_is_balanced_unless_images_are_named_for_it(ranges):
    assert ranges.scales == {}


def test_no_images_to_balance_by_are_an_input_error(model, photos):
    with pytest.raises(InputError, match="no images to balance channels by"):
        observe(model, iter(photos[:1]), balanced_by=[])


def test_the_smallest_image_is_observed(model):
    found = observe(model, [np.zeros((1, 1, 3), np.uint8)])
    assert found.histograms["image"].counts.sum() == 3


def test_images_are_asked_for_one_at_a_time(model, photos):
    alive: list[weakref.ref[np.ndarray]] = []

    def images():
        for index in range(4):
            assert sum(image() is not None for image in alive) <= 1, "an image is kept after it has been observed"
            image = photos[index].copy()
            alive.append(weakref.ref(image))
            yield image
            del image

    observe(model, images())
    assert len(alive) == 4


def test_a_folder_gives_what_its_images_give(ranges, photo_folder, model):
    folder = ImageFolder.open(photo_folder)
    found = observe(model, ImageFolder(folder.paths[:4]), threads=1)
    assert found.to_json() == ranges.to_json()


def test_saved_ranges_are_those_observed(ranges, tmp_path):
    ranges.save(tmp_path / "r.json")
    assert Ranges.load(tmp_path / "r.json").to_json() == ranges.to_json()


def test_a_model_of_a_fixed_batch_counts_every_image_once(model, photos):
    image = photos[0]
    found = observe(fixed(model, 3, *image.shape[:2]), [image], threads=1)
    assert found.data.count == 1
    assert histograms_of(found)["image"] == histograms_of(observe(model, [image], threads=1))["image"]
    assert found.histograms["relu7/Relu"].counts.sum() * 3 != found.histograms["image"].counts.sum()
    single = observe(model, [image], threads=1)
    assert found.histograms["relu7/Relu"].counts.sum() == single.histograms["relu7/Relu"].counts.sum()
    np.testing.assert_allclose(found.means["relu7/Relu"], single.means["relu7/Relu"], rtol=1e-5)


# What it refuses


@pytest.mark.parametrize("images", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_no_images_are_an_input_error(model, images):
    with pytest.raises(InputError, match="no images to calibrate on; expected at least one") as caught:
        observe(model, images)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        [[[0, 0, 0]]],
        None,
    ],
    ids=["grey", "float", "empty", "alpha", "list", "none"],
)
def test_what_is_no_image_is_an_input_error(model, photos, image):
    with pytest.raises(InputError, match="not an image"):
        observe(model, [photos[0], image])


def test_a_batch_is_never_observed_in_part(model, photos):
    batch = np.stack([photos[0], 255 - photos[0]])
    try:
        found = observe(model, [batch], threads=1)
    except InputError:
        return
    assert found.histograms["image"].counts.sum() == batch.size


def test_an_image_of_another_size_than_a_fixed_model_takes_is_an_input_error(model, photos):
    with pytest.raises(InputError, match="wrong shape"):
        observe(fixed(model, 1, 32, 32), photos[:1])


def test_a_model_is_not_changed_by_observing_it(model, photos):
    before = [value.name for value in model.graph.outputs]
    observe(model, photos[:1])
    assert [value.name for value in model.graph.outputs] == before == ["logits"]


@pytest.mark.parametrize(
    ("weight", "tensor"),
    [
        ("conv1_1.0.weight", "conv1_1/Relu"),
        ("conv4_2.0.bias", "conv4_2/Relu"),
        ("fc7.weight", "relu7/Relu"),
        ("score_fr.weight", "score_fr/Conv"),
        ("upscore8.weight", "upscore8/ConvTranspose"),
    ],
)
def test_a_weight_that_is_not_a_number_is_an_input_error_that_names_the_tensor(model, photos, weight, tensor):
    broken = with_weight(model, weight, lambda array: array.reshape(-1).__setitem__(0, np.nan))
    wanted = f"tensor {tensor} of image 1 has values that are not finite; got .*nan.*check the checkpoint"
    with pytest.raises(InputError, match=wanted) as caught:
        observe(broken, photos)
    assert caught.value.exit_code == 6


def test_a_tensor_that_overflows_is_an_input_error(model, photos):
    broken = with_weight(model, "conv2_1.0.weight", lambda array: np.multiply(array, 1e38, out=array))
    with pytest.raises(InputError, match=r"tensor conv2_1/Relu of image 1 has values that are not finite; got .*inf"):
        observe(broken, photos)


def test_an_error_of_the_images_comes_through(model, photos):
    def images():
        yield photos[0]
        raise InputError("photo 2 is damaged")

    with pytest.raises(InputError, match="photo 2 is damaged"):
        observe(model, images())


# The observer


def test_an_observer_can_be_asked_between_images(model, ranges, photos):
    observer = Observer(model, threads=1)
    with pytest.raises(InputError, match="no images to calibrate on"):
        observer.ranges()
    for photo in photos[:2]:
        observer.add(photo)
    assert observer.ranges().data.count == 2
    assert histograms_of(observer.ranges()) == histograms_of(observe(model, photos[:2], threads=1))
    for photo in photos[2:4]:
        observer.add(photo)
    assert observer.ranges(size=(1, 2)).data.size == (1, 2)
    observer.close()
    assert observer.ranges().to_json() == ranges.to_json()


def test_an_observer_that_is_closed_refuses_images(model, photos):
    observer = Observer(model)
    observer.close()
    with pytest.raises(ClosedError):
        observer.add(photos[0])


def test_an_image_that_is_refused_is_not_counted(model, photos):
    observer = Observer(model, threads=1)
    observer.add(photos[0])
    before = observer.ranges().to_json()
    with pytest.raises(InputError):
        observer.add(np.zeros((4, 4), np.uint8))
    assert observer.ranges().to_json() == before
    observer.close()
