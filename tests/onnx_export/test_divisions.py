"""Whole divisions of sizes come out as in Python, of negative numbers too; those of positive ones stay as they are."""

import operator

import pytest
import torch

from fcn_deploy.onnx_export.divisions import round_down

DIMS = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)


class Net(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x.new_zeros(self.size(x.shape[2]), self.size(x.shape[3]))


def traced(size):
    return torch.export.export(Net(size), (torch.zeros(1, 3, 131, 97),), dynamic_shapes=DIMS)


def targets(program):
    return [node.target for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("size", [lambda h: -(-h // 3), lambda h: (5 - h) // 4 + h, lambda h: (h - 500) // 7 + 100])
def test_a_number_that_may_be_negative_loses_its_remainder_first(size):
    program = traced(size)
    round_down(program)
    program.graph.lint()
    assert targets(program).count(operator.mod) == 2
    for height, width in ((131, 97), (130, 98), (129, 96)):
        found = program.module()(torch.zeros(1, 3, height, width))
        assert found.shape == (size(height), size(width))
    for node in program.graph.nodes:
        if node.target is operator.floordiv:  # rounding, in either direction, changes nothing any more
            assert node.args[0].target is operator.sub


@pytest.mark.parametrize("size", [lambda h: h // 3, lambda h: (h + 7) // 8 * 8])
def test_a_positive_number_is_divided_as_it_is(size):
    program = traced(size)
    before = targets(program)
    round_down(program)
    assert targets(program) == before
