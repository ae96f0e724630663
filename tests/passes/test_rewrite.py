"""What all rewrites share: their promises, their docstrings, what they declined, and the order they run in."""

import importlib
import logging
import pkgutil
import re

import onnx_ir as ir
import pytest

from fcn_deploy import passes
from fcn_deploy.errors import InputError
from fcn_deploy.passes.rewrite import Declined, Lowering, Rewrite, RewriteResult

HEADINGS = ["What", "Why", "Before -> after", "Source"]
EXACT = {
    "EarlyArgmax", "FoldQuantizedWeights", "ForgetShapes", "InferTypes", "InlineAndFold", "KeepApart",
    "KeepCubicResize", "KeepRectifiers", "LabelOutput", "NameDims", "NameLayers", "PadClasses", "PadToMultiple",
    "PaddedPools", "QuantizeChannelsLast", "RaiseOpset", "ReserveNames", "RewritePRelu", "TakeImage", "TakeLogits",
    "ToUint8", "UniqueNames",
}  # fmt: skip
BOUNDED = {"ConvolveSubpixels", "ImageInput", "RewriteUpsampling", "Winograd"}
OTHER_PRECISION = {"SimulateRounding", "ToBf16", "ToFp16", "ToFp32"}


def rewrites():
    """Every rewrite that the package defines."""
    modules = [
        importlib.import_module(f"{passes.__name__}.{each.name}") for each in pkgutil.iter_modules(passes.__path__)
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Rewrite) and value.__module__ == module.__name__
        if value is not Rewrite
    }


def empty_model():
    return ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 18}), ir_version=10)


class Renames(Rewrite):
    tolerance = 0.0

    def call(self, model):
        model.graph.name = "renamed"
        return RewriteResult(model, True, (Declined("it is not a graph", "node"),))


class Refuses(Rewrite):
    tolerance = 0.0

    def call(self, model):
        raise InputError("this graph cannot be rewritten", fix="export it again")


def test_every_rewrite_promises_what_happens_to_the_numbers():
    promises = {name: rewrite.tolerance for name, rewrite in rewrites().items()}
    assert {name for name, tolerance in promises.items() if tolerance == 0} == EXACT
    assert {name for name, tolerance in promises.items() if tolerance} == BOUNDED
    assert {name for name, tolerance in promises.items() if tolerance is None} == OTHER_PRECISION
    assert all(promises[name] <= 1e-5 for name in BOUNDED)


@pytest.mark.parametrize(("tolerance", "keeps"), [(0.0, True), (1e-6, False), (None, False)])
def test_only_a_rewrite_without_tolerance_keeps_the_numbers(tolerance, keeps):
    rewrite = Renames()
    rewrite.tolerance = tolerance
    assert rewrite.keeps_numbers is keeps


@pytest.mark.parametrize("name", sorted(EXACT | BOUNDED | OTHER_PRECISION))
def test_the_docstring_of_a_rewrite_has_the_four_headings(name):
    found = re.findall(r"^    (\w[\w >-]*):$", rewrites()[name].__doc__, re.MULTILINE)
    assert [heading for heading in found if heading != "Args"] == HEADINGS


def test_what_was_declined_is_in_the_result_and_in_the_debug_log(caplog):
    with caplog.at_level(logging.DEBUG, "fcn_deploy"):
        result = Renames()(empty_model())
    assert result.declined == (Declined("it is not a graph", "node"),)
    assert "Renames declined node: it is not a graph" in caplog.text
    assert "Renames: changed the graph" in caplog.text


def test_a_lowering_collects_what_its_rewrites_did_and_declined():
    model = empty_model()
    result = Lowering(Renames(), ir.passes.common.RemoveUnusedNodesPass(), Renames())(model)
    assert result.model is model
    assert result.modified
    assert result.declined == (Declined("it is not a graph", "node"),) * 2


def test_an_error_of_a_rewrite_reaches_the_user_as_it_was_raised():
    with pytest.raises(InputError, match="export it again"):
        Lowering(Renames(), Refuses())(empty_model())


def test_a_rewrite_works_in_place():
    model = empty_model()
    assert Renames()(model).model is model
