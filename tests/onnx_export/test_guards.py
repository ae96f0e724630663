import pytest
import torch

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import DependencyError, InputError
from fcn_deploy.onnx_export.guards import Guard, find_violated_guards
from fcn_deploy.workflows.exporting import export
from tests.support import custom_nets

TRACED = ImageShape(2, 67, 93)


class _Program:
    def __init__(self, *guards):
        self._guards_code = list(guards)


def _find(*guards):
    return find_violated_guards(_Program(*guards), TRACED)


@pytest.mark.parametrize(
    ("guard", "violated_by"),
    [
        ("(L['x'].size()[2] % 2) != 0", ImageShape(2, 2, 93)),
        ("L['image'].size()[3] != 1", ImageShape(2, 67, 1)),
        ("L['x'].size()[2] <= 1000", ImageShape(2, 1001, 93)),
        ("L['x'].size()[2] != L['x'].size()[3]", ImageShape(2, 1, 1)),
        ("L['x'].size()[0] != 3", ImageShape(3, 67, 93)),
        ("math.trunc(0.5*torch.sym_float(L['x'].size()[2])) == 33", ImageShape(2, 1, 93)),
        ("max(1, (7 + L['x'].size()[3]) // 8)*max(1, (7 + L['x'].size()[2]) // 8) != 1", ImageShape(2, 1, 1)),
    ],
)
def test_a_guard_comes_with_the_smallest_image_that_violates_it(guard, violated_by):
    (found,) = _find(guard)
    assert found.violated_by == violated_by


def test_a_guard_that_every_image_meets_is_left_out():
    assert _find("L['x'].size()[2] >= 1", "L['x'].size()[1] == 3") == []


def test_of_guards_that_the_same_image_violates_the_first_is_kept():
    assert len(_find("L['x'].size()[3] != 1", "((L['x'].size()[3] - 1) // 2) != 0")) == 1


def test_a_guard_that_cannot_be_evaluated_is_returned_without_an_image():
    assert _find("frobnicate(L['x'].size()[2])") == [Guard("frobnicate(height)", None, TRACED)]


def test_a_guard_can_call_nothing_but_arithmetic():
    assert _find("__import__('os').getcwd() == ''")[0].violated_by is None


def test_a_torch_without_guards_is_refused_as_too_old():
    with pytest.raises(DependencyError, match="torch>="):
        find_violated_guards(object(), TRACED)


@pytest.mark.parametrize(
    ("kind", "condition"), [(custom_nets.Conditional, r"\(height % 2\) != 0"), (custom_nets.Tall, "height > 1000")]
)
def test_a_net_whose_results_depend_on_the_size_is_refused_with_the_condition(tmp_path, kind, condition):
    torch.save(custom_nets.trained(kind()).state_dict(), tmp_path / "w.pth")
    model = f"tests.support.custom_nets:{kind.__name__}"
    message = f"the exported model is right only if {condition}; got .*; fix: remove from the net: "
    with pytest.raises(InputError, match=message):
        export(tmp_path / "w.pth", model=model, simplify=False, output=tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()
