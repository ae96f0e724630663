"""TensorRT-RTX for tests: its parser and its builder, which need no GPU."""

from __future__ import annotations

import pytest


def parse(data: bytes) -> tuple[object, object, list[str]]:
    """Parses a model into a strongly typed network; gives the builder, the network and the parser's complaints."""
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(data)
    errors = [f"{parser.get_error(i).node_name()}: {parser.get_error(i).desc()}" for i in range(parser.num_errors)]
    assert parsed == (not errors)
    return builder, network, errors


def build(data: bytes, shape: tuple[int, ...]) -> int:
    """Builds a model for one shape of its input and returns the size of the plan."""
    builder, network, errors = parse(data)
    assert errors == []
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    return plan.nbytes
