"""The logits in what a net returns."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from fcn_deploy.errors import InputError
from fcn_deploy.models.outputs import logits_of

LOGITS, OTHER = torch.zeros(1, 5, 4, 4), torch.ones(1, 5, 2, 2)
Heads = namedtuple("Heads", ["logits", "aux"])


@dataclass
class Output:
    logits: torch.Tensor
    hidden: tuple = (OTHER,)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS,),
        [LOGITS],
        [[LOGITS]],
        (LOGITS, None, 0.5),
        {"out": LOGITS},
        {"out": LOGITS, "aux": OTHER},
        OrderedDict(loss=None, logits=LOGITS, hidden=(OTHER, OTHER)),
        {"mask": LOGITS},
        {"out": [LOGITS]},
        Heads(LOGITS, OTHER),
        Output(LOGITS),
        SimpleNamespace(logits=LOGITS, loss=3),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_taken_unasked_if_they_leave_no_choice(output):
    assert logits_of(output) is LOGITS


@pytest.mark.parametrize(
    "output",
    [
        (OTHER, LOGITS),
        [LOGITS, LOGITS],
        {"a": LOGITS, "b": OTHER},
        {"out": LOGITS, "logits": OTHER},
        ((OTHER, LOGITS),),
    ],
)
def test_several_tensors_are_refused_with_their_names_and_shapes(output):
    with pytest.raises(
        InputError, match=r"several tensors.*\[1, 5, \d, \d\], .*fix: name the logits, such as `logits="
    ):
        logits_of(output)


def test_at_most_eight_tensors_are_listed():
    with pytest.raises(InputError, match=r"7: \[1, 5, 2, 2\] and 12 more; expected"):
        logits_of((OTHER,) * 20)


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ((LOGITS, OTHER), "0"),
        ((OTHER, LOGITS), "-1"),
        ({"aux": OTHER, "main": LOGITS}, "main"),
        ({"aux": OTHER, "main": LOGITS}, "1"),
        ({"aux": OTHER, "main": {"fine": LOGITS, "coarse": OTHER}}, "main.fine"),
        ({"a.b": LOGITS, "a": {"b": OTHER}}, "a.b"),
        (((OTHER, OTHER), (OTHER, LOGITS)), "1.1"),
        (Heads(OTHER, LOGITS), "aux"),
        (Output(OTHER, (OTHER, LOGITS)), "hidden.1"),
        ({"main": [LOGITS], "aux": OTHER}, "main"),
        ({0: OTHER, 1: LOGITS}, "1"),
    ],
    ids=str,
)
def test_logits_are_taken_by_key_attribute_or_index(output, name):
    assert logits_of(output, name) is LOGITS


@pytest.mark.parametrize(
    ("output", "name", "got"),
    [
        ((LOGITS, OTHER), "2", r"0: \[1, 5, 4, 4\], 1: \[1, 5, 2, 2\]"),
        ({"a": LOGITS}, "b", r"a: \[1, 5, 4, 4\]"),
        ({"a": (LOGITS, OTHER)}, "a", r"a.0: .*a.1"),
        (LOGITS, "out", "a Tensor"),
        ({"a": LOGITS}, "a.b", "a: "),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_those_that_are(output, name, got):
    with pytest.raises(InputError, match=f"the net returns no logits under '{name}'; got {got}"):
        logits_of(output, name)


@pytest.mark.parametrize("output", [None, {}, (), {"out": 1.0}, "text", 3], ids=repr)
def test_an_output_without_tensors_is_refused(output):
    with pytest.raises(InputError, match=r"the net returns no logits; got a .* without tensors"):
        logits_of(output)
