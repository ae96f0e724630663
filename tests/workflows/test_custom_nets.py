"""Nets of the user's own go the whole way: export, calibration, INT8, engines, Segmenter."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.errors import UsageError
from fcn_deploy.workflows.deploying import deploy
from fcn_deploy.workflows.references import NetCode, opened
from tests.support import custom_nets

QUICK = {"warmup": 0, "duration": 0, "iterations": 1}
NETS = {
    custom_nets.ResNetFCN: {},
    custom_nets.Depthwise: {},
    custom_nets.UNet: {"size_divisor": 8, "pad_mode": "reflect"},
}


class Deployed(NamedTuple):
    weights: Path
    output: Path
    model: str
    summary: Summary


@pytest.fixture(scope="module", params=NETS, ids=lambda kind: kind.__name__)
def deployed(request, photo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.__name__)
    torch.save(custom_nets.trained(request.param()).state_dict(), folder / "weights.pth")
    model, padding = f"tests.support.custom_nets:{request.param.__name__}", NETS[request.param]
    weights, output = folder / "weights.pth", folder / "out"
    summary = deploy(weights, photo_folder, output, int8=True, model=model, **padding, **QUICK)
    return Deployed(weights, output, model, summary)


def test_fp32_and_int8_meet_their_gates_and_are_shipped(deployed):
    output, summary = deployed.output, deployed.summary
    assert summary.passed
    name = deployed.model.partition(":")[2]
    assert {f"{name}.onnx", f"{name}.fp32.onnx", f"{name}.int8.onnx"} <= {p.name for p in output.iterdir()}


def test_all_convolutions_run_in_int8_but_the_first_and_the_last(deployed):
    output, summary = deployed.output, deployed.summary
    layers = json.loads((output / f"{summary.variant}.int8.onnx.json").read_text())["precision"]["layers"]
    in_float = {name for name, precision in layers.items() if precision == "fp32"}
    transposed = {"Depthwise": {"upscore"}}.get(summary.variant, set())  # it interpolates
    ends = {"ResNetFCN": {"stem", "classifier.4"}, "Depthwise": {"features.0", "score"}, "UNet": {"down.0", "head"}}
    assert in_float == ends[summary.variant] | transposed
    net = custom_nets.trained(getattr(custom_nets, summary.variant)())
    ignored = {"ResNetFCN": 1}.get(summary.variant, 0)  # the auxiliary head is not part of the graph
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == len(convs) - ignored


@pytest.mark.parametrize("size", [(1, 1), (33, 64), (57, 41)])
def test_engines_label_images_of_any_size_as_pytorch_does(deployed, size):
    output, summary = deployed.output, deployed.summary
    image = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    engine_file = output / f"{summary.variant}.fp32.onnx"
    with opened([engine_file, f"pytorch:{deployed.weights}"], code=NetCode(deployed.model)) as (engine, reference):
        labels = engine(image)
        assert labels.shape == (2, *size)
        assert np.mean(labels == reference(image)) >= 0.999


def test_a_reference_is_not_made_by_code_that_a_file_names(deployed):
    output, summary = deployed.output, deployed.summary
    engine = output / f"{summary.variant}.fp32.onnx"
    with pytest.raises(UsageError, match="add `model="), opened([engine, f"pytorch:{deployed.weights}"]):
        pytest.fail("the reference was opened")
