import sys

import pytest
import torch
from torch import nn

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.models.custom import load_custom, load_strictly, make_net
from fcn_deploy.models.load import load_net, load_reference
from fcn_deploy.models.spec_options import SpecOptions
from tests.support import custom_nets


@pytest.fixture
def weights(tmp_path):
    def save(kind, change=None):
        state = custom_nets.trained(kind()).state_dict()
        path = tmp_path / f"{kind.__name__}.pth"
        torch.save(change(state) if change else state, path)
        return path

    return save


def test_a_class_a_function_and_a_net_that_exists_already_are_accepted():
    assert isinstance(make_net("tests.support.custom_nets:UNet"), custom_nets.UNet)
    assert isinstance(make_net("torch.nn:Identity"), nn.Identity)
    assert isinstance(make_net("tests.support.custom_nets:ready"), custom_nets.Depthwise)


def test_modules_of_the_current_folder_are_found_even_if_they_are_imported_late(tmp_path, monkeypatch):
    (tmp_path / "my_layers.py").write_text("from torch.nn import Identity\n")
    (tmp_path / "my_fresh_net.py").write_text(
        "def make():\n    from my_layers import Identity\n    return Identity()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    assert isinstance(make_net("my_fresh_net:make"), nn.Identity)


def test_a_net_that_exists_already_is_copied_for_each_checkpoint():
    first, second = make_net("tests.support.custom_nets:ready"), make_net("tests.support.custom_nets:ready")
    assert first is not custom_nets.ready
    assert first.score.weight.data_ptr() != second.score.weight.data_ptr()


def test_output_of_the_users_code_goes_to_stderr(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_loud_net.py").write_text("print('hello')\nfrom torch.nn import Identity as make\n")
    monkeypatch.chdir(tmp_path)
    make_net("my_loud_net:make")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


@pytest.mark.parametrize("name", ["nets", "nets.UNet", ":UNet", "nets:", "my nets:UNet", "a.py:UNet()"])
def test_a_name_of_another_form_is_a_usage_error(name):
    with pytest.raises(UsageError, match=r"package\.module:callable"):
        make_net(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:make", "no module called no_such_module.*run from the folder"),
        ("tests.support.custom_nets:Unet", "tests.support.custom_nets has no Unet.*UNet"),
        ("tests.support.custom_nets:Needy", "cannot be called without arguments.*classes.*write a function"),
        ("tests.support.custom_nets:number", "cannot be called; got a int"),
        ("tests.support.custom_nets:gives_a_string", "returns no net; got a str"),
        ("tests.support.custom_nets:fails", "fails; got RuntimeError: no net today"),
    ],
)
def test_a_name_that_makes_no_net_is_refused_with_the_reason(name, why):
    with pytest.raises(InputError, match=why):
        make_net(name)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import no_such_package\n", "install no_such_package"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(0)\n", "SystemExit"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused_with_the_reason(tmp_path, monkeypatch, code, why):
    name = f"broken_{len(code)}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"cannot import {name}.*{why}"):
        make_net(f"{name}:make")


def test_a_custom_net_is_loaded_with_its_weights_and_a_spec(weights):
    path = weights(custom_nets.ResNetFCN)
    net = load_net(str(path), SpecOptions(model="tests.support.custom_nets:ResNetFCN"))
    image = torch.randn(1, 3, 37, 51)
    with torch.inference_mode():
        assert torch.equal(net.module(image), custom_nets.trained(custom_nets.ResNetFCN())(image)["out"])
    assert (net.spec.variant, net.spec.model) == ("ResNetFCN", "tests.support.custom_nets:ResNetFCN")
    assert (net.spec.stride, net.spec.width, net.spec.geometry) == (None, None, None)
    assert net.spec.num_classes == custom_nets.CLASSES
    assert net.spec.checkpoint is not None
    assert net.spec.checkpoint.layout == "own"
    assert net.spec.normalization.assumed


def test_half_precision_and_the_prefixes_of_wrappers_are_accepted(weights):
    def wrap(state):
        halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        return {"state_dict": {f"module.{key}": value for key, value in halves.items()}}

    net = load_custom("tests.support.custom_nets:Depthwise", weights(custom_nets.Depthwise, wrap))
    assert {tensor.dtype for tensor in net.module.state_dict().values()} == {torch.float32, torch.int64}


def test_a_net_with_a_module_called_module_loads(tmp_path):
    class Wrapping(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Conv2d(3, 2, 1)

    torch.save(Wrapping().state_dict(), tmp_path / "w.pth")
    load_strictly(Wrapping(), tmp_path / "w.pth", "it")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "head.bias"}, "missing: head.bias"),
        (lambda state: {**state, "extra.weight": torch.ones(2)}, "unexpected: extra.weight"),
        (lambda state: {**state, "head.bias": torch.ones(9)}, r"misshapen: head.bias \[9\] instead of \[5\]"),
        (lambda state: {**state, "head.bias": torch.full((5,), torch.nan)}, "head.bias has values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, change, why):
    with pytest.raises(InputError, match=why):
        load_custom("tests.support.custom_nets:UNet", weights(custom_nets.UNet, change), Padding(8))


def test_an_unknown_layout_is_refused_with_the_parameter_for_custom_nets(weights):
    with pytest.raises(InputError, match=r"add `model=\"package\.module:callable\"`"):
        load_net(weights(custom_nets.UNet))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": Padding(8)},
        {"model": "tests.support.custom_nets:UNet", "at_once": True},
        {"model": "x:y", "input_padding": 0},
    ],
)
def test_options_that_conflict_are_refused(options):
    with pytest.raises(UsageError):
        SpecOptions(**options)


def test_a_variant_for_a_custom_net_is_refused(weights):
    with pytest.raises(UsageError, match="`variant` is for published nets"):
        load_net(
            weights(custom_nets.Depthwise), SpecOptions(model="tests.support.custom_nets:Depthwise"), variant="fcn8s"
        )


def test_the_reference_of_an_engine_is_padded_like_the_engine_and_made_by_code_the_user_names(weights):
    path = weights(custom_nets.UNet)
    spec = load_net(path, SpecOptions(model="tests.support.custom_nets:UNet", padding=Padding(8, "reflect"))).spec
    reference = load_reference(str(path), spec, "tests.support.custom_nets:UNet")
    assert reference.module(torch.zeros(1, 3, 13, 7)).shape == (1, custom_nets.CLASSES, 13, 7)
    # A model file may name any code; that is no reason to run it.
    with pytest.raises(UsageError, match=r"add `model=\"tests\.support\.custom_nets:UNet\"`"):
        load_reference(path, spec)
