import numpy as np
import pytest

from fcn_deploy.artifacts.shapes import ImageShape, TensorSpec
from fcn_deploy.errors import InputError
from fcn_deploy.onnx_export.comparison import compare_models, noise
from fcn_deploy.onnx_export.recording import record
from fcn_deploy.progress import Silent

SHAPES = [ImageShape(1, 5, 7), ImageShape(2, 3, 4)]


class _Net:
    """Gives its input plus one, as long as it is open."""

    name = "net"
    inputs = (TensorSpec("image", "float32", ("batch", 3, "height", "width")),)
    outputs = (TensorSpec("logits", "float32", ("batch", 3, "height", "width")),)
    metadata = {"a": "b"}  # noqa: RUF012
    closed = False
    runs = 0

    def infer(self, feeds):
        assert not self.closed
        self.runs += 1
        return {"logits": feeds["image"] + 1}


def test_what_a_net_gave_is_given_again_after_it_was_closed(tmp_path):
    net = _Net()
    recorded = record(net, map(noise, SHAPES), tmp_path)
    net.closed = True
    for shape in reversed(SHAPES):
        found = recorded.infer({"image": noise(shape)})["logits"]
        assert found.dtype == np.float32
        assert np.array_equal(found, noise(shape) + 1)
    assert (recorded.name, recorded.inputs, recorded.outputs, recorded.metadata) == (
        *("net", net.inputs, net.outputs, net.metadata),
    )


def test_a_recorded_net_is_a_reference_to_compare_with(tmp_path):
    net = _Net()
    with record(net, map(noise, SHAPES), tmp_path) as recorded:
        assert compare_models(recorded, net, SHAPES, "the original", Silent()) == 0


def test_an_image_that_the_net_has_not_seen_has_no_output(tmp_path):
    recorded = record(_Net(), [noise(SHAPES[0])], tmp_path)
    with pytest.raises(LookupError, match=r"net has not run on this image, \[1, 3, 5, 7\]"):
        recorded.infer({"image": noise(SHAPES[0]) + 1})
    with pytest.raises(LookupError, match=r"\[1, 3, 7, 5\]"):
        recorded.infer({"image": noise(SHAPES[0]).reshape(1, 3, 7, 5)})
    with pytest.raises(InputError, match="input image has the wrong dtype"):
        recorded.infer({"image": noise(SHAPES[0]).astype(np.float64)})


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*missing.*No such file"):
        record(_Net(), [noise(SHAPES[0])], tmp_path / "missing")
