"""What `export` keeps in memory, and what it compares."""

import weakref

import numpy as np
import pytest
import torch

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import ArtifactError, GateError
from fcn_deploy.models import load
from fcn_deploy.onnx_export import comparison
from fcn_deploy.workflows import exporting
from fcn_deploy.workflows.exporting import export
from tests.support import custom_nets


@pytest.mark.parametrize("model", [None, "tests.support.custom_nets:Depthwise"])
def test_the_weights_have_left_the_memory_when_the_export_is_simplified_and_compared(
    model, checkpoint_file, tmp_path, monkeypatch
):
    weights = checkpoint_file("fcn8s")
    if model is not None:
        weights = tmp_path / "net.pth"
        torch.save(custom_nets.trained(custom_nets.Depthwise()).state_dict(), weights)
    parameters, alive = [], []
    real_load, real_compared = load.load_net, exporting._compared

    def remembered(*arguments, **options):
        net = real_load(*arguments, **options)
        parameters.extend(map(weakref.ref, net.module.parameters()))  # so this test keeps none alive
        return net

    def counted(*arguments):
        kept = [parameter() for parameter in parameters]
        alive.append(sum(parameter.numel() for parameter in kept if parameter is not None))
        return real_compared(*arguments)

    monkeypatch.setattr(load, "load_net", remembered)
    monkeypatch.setattr(exporting, "_compared", counted)
    export(weights, model=model, simplify=False)
    assert parameters
    assert alive == [0]


def test_a_net_that_its_maker_makes_only_once_can_be_exported_again(tmp_path):
    torch.save(custom_nets.trained(custom_nets.Depthwise()).state_dict(), tmp_path / "net.pth")
    first, second = (export(tmp_path / "net.pth", model="tests.support.custom_nets:the_same") for _ in range(2))
    assert first.sha256 == second.sha256


@pytest.mark.parametrize("shape", [None, "1x40x56"])
def test_every_shape_is_compared_with_what_pytorch_gave_for_the_same_image(shape, checkpoint_file, monkeypatch):
    compared = []
    real = comparison.compare_backends

    def noted(reference, candidate, feeds):
        feeds = list(feeds)
        for feed in feeds:
            expected, found = (net.infer(feed)["logits"] for net in (reference, candidate))
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.ptp(expected))
        compared.extend(feed["image"].shape for feed in feeds)
        return real(reference, candidate, feeds)

    monkeypatch.setattr(comparison, "compare_backends", noted)
    assert 0 < export(checkpoint_file("fcn32s"), simplify=False, shape=shape).error <= 1e-5
    shapes = [ImageShape(1, 40, 56)] if shape else [*comparison.SHAPES, *comparison.REAL]
    assert {(one.batch, 3, one.height, one.width) for one in shapes} <= set(compared)


def test_a_model_that_onnx_runtime_cannot_load_is_not_called_by_the_name_of_a_temporary_file(
    checkpoint_file, tmp_path, monkeypatch
):
    from fcn_deploy.onnx_export import simplifier

    monkeypatch.setattr(simplifier, "simplify_file", lambda source, target: target.write_bytes(b"no model"))
    with pytest.raises(ArtifactError, match="cannot load the model; got"):
        export(checkpoint_file("fcn8s"), output=tmp_path / "net.onnx")


def test_a_simplified_model_that_gives_other_results_than_pytorch_is_refused(checkpoint_file, tmp_path, monkeypatch):
    from fcn_deploy.onnx_export import simplifier

    real = simplifier.simplify_file

    def broken(source, target):
        real(source, target)
        weights = target.with_name(f"{target.name}.weights")
        weights.write_bytes(weights.read_bytes()[::-1])

    monkeypatch.setattr(simplifier, "simplify_file", broken)
    with pytest.raises(GateError, match="does not give the results of PyTorch"):
        export(checkpoint_file("fcn8s"), output=tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
