import numpy as np
import pytest

from fcn_deploy.artifacts.shapes import ImageShape, TensorSpec
from fcn_deploy.errors import ArtifactError, GateError, InputError
from fcn_deploy.onnx_export.comparison import REAL, SHAPES, compare_models, comparison_shapes, require_harmless
from fcn_deploy.onnx_export.guards import Guard
from fcn_deploy.progress import Silent


class _Model:
    """Gives its input times `gain`; at the shape `odd`, what `change` makes of that."""

    name = "fake"

    def __init__(self, gain=1.0, odd=None, change=None, shape=("batch", 3, "height", "width")):
        self.gain, self.odd, self.change = gain, odd, change
        self.inputs = (TensorSpec("image", "float32", shape),)
        self.outputs = (TensorSpec("logits", "float32", shape),)
        self.metadata = {}
        self.seen = []

    def infer(self, feeds):
        image = feeds["image"]
        self.seen.append(ImageShape(image.shape[0], *image.shape[2:]))
        logits = image * np.float32(self.gain)
        return {"logits": self.change(logits) if self.seen[-1] == self.odd else logits}

    def close(self):
        pass


def _compare(candidate, shapes=SHAPES):
    return compare_models(_Model(), candidate, shapes, "the original", Silent())


def _fail(logits):
    raise ArtifactError("the model cannot run", got="a bad shape")


def test_equal_models_have_no_error_and_are_run_at_every_shape():
    candidate = _Model()
    assert _compare(candidate) == 0
    assert candidate.seen == list(SHAPES)


def test_the_error_is_the_largest_over_all_shapes():
    candidate = _Model(odd=SHAPES[-1], change=lambda logits: logits * np.float32(1 + 5e-5))
    error = _compare(candidate)
    assert 1e-5 < error < 1e-4


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda logits: logits * 1.01, "an error of .* of the logits' range; expected at most 1e-04"),
        (lambda logits: logits * np.nan, "an error of inf"),
        (lambda logits: logits[:, :, 1:], "results differ in shape"),
    ],
    ids=["other numbers", "NaN", "another size"],
)
def test_a_difference_at_one_shape_is_a_missed_gate(change, got):
    with pytest.raises(GateError, match=f"does not give the results of the original; got {got}"):
        _compare(_Model(odd=SHAPES[2], change=change))


def test_a_dynamic_model_is_compared_at_all_shapes():
    assert comparison_shapes(_Model()) == [*SHAPES, *REAL]
    sizes = [(shape.height, shape.width) for shape in SHAPES]
    assert (1, 1) in sizes
    assert any(height > width for height, width in sizes)
    assert any(height < width for height, width in sizes)
    assert len({shape.batch for shape in SHAPES}) > 1


def test_sizes_that_a_model_fixes_replace_those_of_the_shapes():
    assert comparison_shapes(_Model(shape=(2, 3, 40, 56))) == [ImageShape(2, 40, 56)]
    shapes = comparison_shapes(_Model(shape=("batch", 3, 40, "width")))
    assert {shape.height for shape in shapes} == {40}
    assert len({shape.width for shape in shapes}) == len(SHAPES) + len(REAL)


VIOLATION = ImageShape(2, 2, 93)
MET = ImageShape(2, 67, 93)
GUARD = Guard("(height % 2) != 0", VIOLATION, MET)


def test_a_guard_is_harmless_if_the_results_are_those_of_pytorch_without_it():
    candidate = _Model()
    require_harmless(GUARD, _Model(), candidate)
    assert candidate.seen[0] == VIOLATION


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda logits: logits * 2, "the model does not give the results of PyTorch at 2x2x93: an error of"),
        (_fail, "the model cannot run at 2x2x93: a bad shape"),
    ],
    ids=["other numbers", "no result"],
)
def test_a_guard_that_matters_is_an_input_error_with_the_condition(change, got):
    with pytest.raises(InputError, match=r"right only if \(height % 2\) != 0; got " + got):
        require_harmless(GUARD, _Model(), _Model(odd=VIOLATION, change=change))


def test_a_guard_that_cannot_be_evaluated_is_not_harmless():
    with pytest.raises(InputError, match=r"right only if frobnicate\(height\); got a condition that cannot be"):
        require_harmless(Guard("frobnicate(height)", None, MET), _Model(), _Model())
