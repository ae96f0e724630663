"""Nets of the user's own go the whole way: export, calibration, INT8, engines, Segmenter."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.models.spec_options import SpecOptions
from fcn_deploy.runtime import Segmenter
from fcn_deploy.workflows import references as sources
from fcn_deploy.workflows.deploying import DeployConfig, deploy
from tests.support import custom_nets

QUICK = BenchmarkConfig(warmup=0, duration=0, iterations=1)
NETS = {custom_nets.ResNetFCN: None, custom_nets.Depthwise: None, custom_nets.UNet: Padding(8, "reflect")}


@pytest.fixture(scope="module", params=NETS, ids=lambda kind: kind.__name__)
def deployed(request, photo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.__name__)
    torch.save(custom_nets.trained(request.param()).state_dict(), folder / "weights.pth")
    options = SpecOptions(model=f"tests.support.custom_nets:{request.param.__name__}", padding=NETS[request.param])
    config = DeployConfig(
        folder / "weights.pth", photo_folder, folder / "out", int8=True, options=options, benchmark=QUICK
    )
    return config, deploy(config)


def test_fp32_and_int8_meet_their_gates_and_are_shipped(deployed):
    config, summary = deployed
    assert summary.passed
    name = config.options.model.partition(":")[2]
    assert {f"{name}.onnx", f"{name}.fp32.onnx", f"{name}.int8.onnx"} <= {p.name for p in config.output.iterdir()}


def test_all_convolutions_run_in_int8_but_the_first_and_the_last(deployed):
    config, summary = deployed
    layers = json.loads((config.output / f"{summary.variant}.int8.onnx.json").read_text())["precision"]["layers"]
    in_float = {name for name, precision in layers.items() if precision == "fp32"}
    transposed = {"Depthwise": {"upscore"}, "UNet": {"up.0", "up.1", "up.2"}}.get(summary.variant, set())
    ends = {"ResNetFCN": {"stem", "classifier.4"}, "Depthwise": {"features.0", "score"}, "UNet": {"down.0", "head"}}
    assert in_float == ends[summary.variant] | transposed
    net = custom_nets.trained(getattr(custom_nets, summary.variant)())
    ignored = {"ResNetFCN": 1}.get(summary.variant, 0)  # the auxiliary head is not part of the graph
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == len(convs) - ignored


@pytest.mark.parametrize("size", [(1, 1), (33, 64), (57, 41)])
def test_engines_label_images_of_any_size_as_pytorch_does(deployed, size):
    config, summary = deployed
    image = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    with Segmenter(config.output / f"{summary.variant}.fp32.onnx") as engine:
        reference = sources.open_reference(f"pytorch:{config.weights}", engine.spec, model=config.options.model)
        labels = engine(image)
        assert labels.shape == (2, *size)
        assert np.mean(labels == reference(image)) >= 0.999


def test_a_reference_is_not_made_by_code_that_a_file_names(deployed):
    config, summary = deployed
    from fcn_deploy.workflows import references as sources

    with (
        Segmenter(config.output / f"{summary.variant}.fp32.onnx") as engine,
        pytest.raises(UsageError, match="--model"),
    ):
        sources.open_reference(f"pytorch:{config.weights}", engine.spec)
