"""The layers of a plan as values, and their JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_deploy.artifacts.plan import Plan, PlanLayer, PlanTensor
from fcn_deploy.errors import InputError

WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
SHAPES = st.lists(st.integers(-1, 10**6), max_size=6).map(tuple)


@given(WORDS, SHAPES, st.lists(WORDS).map(" ".join))
def test_a_tensor_comes_back_from_its_text(kind, shape, layout):
    tensor = PlanTensor(kind, shape, layout)
    assert PlanTensor.parse(str(tensor)) == tensor


def test_the_text_of_a_tensor():
    assert str(PlanTensor("int8", (-1, 64, -1, -1), "NHWC")) == "int8 -1x64x-1x-1 NHWC"
    assert str(PlanTensor("fp32", ())) == "fp32 scalar"


@pytest.mark.parametrize("text", ["", "int8", "int8 axb", "int8 3x-2", None, 7, ["int8"]])
def test_a_text_that_is_no_tensor_is_refused(text):
    with pytest.raises(InputError, match="sidecar plan"):
        PlanTensor.parse(text)


LAYER = PlanLayer("conv", "correlation", "k", ("conv", "relu"), ("x",), ("y",))
PLAN = Plan("log", (LAYER,), {"x": PlanTensor("int8", (1, 2)), "y": PlanTensor("fp16", (1, 2), "NHWC")})


def test_a_plan_comes_back_from_its_json():
    assert Plan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


@pytest.mark.parametrize(
    "change",
    [
        {"source": "a guess"},
        {"tensors": {"x": "int8 1x2"}},
        {"tensors": {"x": "int8 1x2", "y": 3}},
        {"layers": [{**LAYER.to_json(), "reads": "x"}]},
        {"layers": [{**LAYER.to_json(), "name": None}]},
        {"layers": [{**LAYER.to_json(), "nodes": [1]}]},
    ],
)
def test_bad_json_is_refused(change):
    with pytest.raises(InputError, match="sidecar plan"):
        Plan.from_json({**PLAN.to_json(), **change})
