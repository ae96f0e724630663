"""Exported models, in the forms in which users name them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from fcn_deploy.errors import UsageError
from fcn_deploy.files import StrPath
from fcn_deploy.graph.header import check_onnx_file
from fcn_deploy.workflows.parameters import input_file

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel


def check_model(model: StrPath | ExportedModel | None) -> None:
    """Checks, before the library that reads models is imported, that a file may be an ONNX model.

    Raises:
        InputError: It cannot be read, or is plainly something else.
    """
    if isinstance(model, str | os.PathLike):
        check_onnx_file(input_file(model))


def exported_model(model: StrPath | ExportedModel, spec_from: StrPath | ExportedModel | None = None) -> ExportedModel:
    """Returns an exported model, which is read if it is a file.

    Args:
        model: A file, or what `export` or `load_exported` gave.
        spec_from: The model that the file was made of, by a tool that left out its spec; else None.

    Raises:
        InputError: A file cannot be read, or is not an exported model.
        UsageError: It is neither, or `spec_from` is for a model that is loaded, or that has another spec of its own.
    """
    if not isinstance(model, str | os.PathLike):
        # A model exists only after its module was imported, which takes a second.
        module = sys.modules.get("fcn_deploy.graph.model")
        known: bool = module is not None and isinstance(model, module.ExportedModel)
        if not known:
            expected = "a file, or what `export` or `load_exported` gave"
            raise UsageError("bad `model`", got=repr(model)[:80], expected=expected)
        if spec_from is not None:
            raise UsageError("a model that is loaded has its spec", got="`spec_from`", fix="leave it out")
        return model
    check_model(model)
    check_model(spec_from)
    from fcn_deploy.graph.model import load_exported

    stated = None if spec_from is None else exported_model(spec_from).spec
    return load_exported(input_file(model), spec=stated)
