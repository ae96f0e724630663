"""Checkpoints that need a word from the user, and unusual normalisations, go the whole way."""

import json
import logging

import pytest
import torch

import fcn_deploy as fd
from fcn_deploy.cli.app import _COMMANDS, cli
from fcn_deploy.cli.flags import flags_of, render
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.workflows.deploying import deploy
from fcn_deploy.workflows.exporting import export
from tests.support import checkpoints as forms

NET = "tests.support.checkpoints:Net"
QUICK = {"warmup": 0, "duration": 0, "iterations": 1}


def test_a_checkpoint_with_two_sets_of_weights_and_espnets_normalisation_is_deployed(photo_folder, tmp_path, caplog):
    content = {"model": forms.other(), "model_ema": {**forms.under("net."), "criterion.weight": torch.ones(4)}}
    torch.save(content, tmp_path / "net.pth")
    with caplog.at_level(logging.WARNING, "fcn_deploy"):
        summary = deploy(
            tmp_path / "net.pth",
            photo_folder,
            tmp_path / "out",
            model=NET,
            weights_key="model_ema",
            weights_ignore="criterion.*",
            mean=(72.3923, 82.9089, 73.1584),
            std=(18310.0, 18310.0, 18310.0),
            scale=1.0,
            io="tensor",
            gate="error<=1e-3",  # random weights give one label: only the logits tell
            **QUICK,
        )
    assert summary.passed
    assert "the net will see values from" in caplog.text
    sidecar = json.loads((tmp_path / "out" / "Net.fp32.onnx.json").read_text())
    assert sidecar["spec"]["normalization"]["std"] == [18310.0, 18310.0, 18310.0]


def test_a_prefix_and_a_preset_are_passed_on(tmp_path):
    torch.save({**forms.under("a.", forms.other()), **forms.under("b.")}, tmp_path / "net.pth")
    model = export(tmp_path / "net.pth", model=NET, weights_prefix="b", normalization="minus-one-one")
    assert (model.spec.normalization.scale, model.spec.normalization.assumed) == (1 / 127.5, False)


def test_a_glob_is_shown_as_a_shell_takes_it():
    flags = flags_of([cli.get_command(None, command) for command in _COMMANDS])
    assert render('leave it out: `weights_ignore="aux.*"`', flags) == "leave it out: --weights-ignore 'aux.*'"


def test_what_takes_a_checkpoint_takes_the_options_of_its_weights(photo_folder, tmp_path):
    content = {"model": forms.other(), "model_ema": {**forms.under("net."), "criterion.weight": torch.ones(4)}}
    torch.save(content, tmp_path / "net.pth")
    options = {"weights_key": "model_ema", "weights_prefix": "net", "model": NET}
    net = export(tmp_path / "net.pth", **options, normalization="zero-one")
    checkpoint = f"pytorch:{tmp_path / 'net.pth'}"
    found = fd.verify(net, data=photo_folder, weights=tmp_path / "net.pth", **options, max_images=2, gate="error<=1e-3")
    assert found.error < 1e-3
    with pytest.raises(InputError, match=r"plain and averaged.*`weights_key="):
        fd.verify(net, checkpoint, photo_folder, model=NET)
    fd.predict(net, photo_folder, tmp_path / "labels", save=("labels",))
    for path in (tmp_path / "labels").iterdir():
        path.rename(path.with_name(path.name.replace(".labels", "")))
    score = fd.evaluate(net, photo_folder, tmp_path / "labels", reference=checkpoint, max_images=2, **options)
    assert score.reference.parity.agreement == 1
    fd.benchmark([net], vs=checkpoint, shape="16x16", warmup=0, duration=0, iterations=1, **options)
    fd.predict(checkpoint, next(photo_folder.iterdir()), tmp_path / "one", **options)


def test_options_of_weights_without_a_checkpoint_are_a_usage_error(tmp_path):
    torch.save(forms.state(), tmp_path / "net.pth")
    net = export(tmp_path / "net.pth", model=NET, normalization="zero-one")
    for name, value in {"weights_key": "ema", "weights_prefix": "net.", "weights_ignore": ["a"]}.items():
        with pytest.raises(UsageError, match=f"`{name}` is of a checkpoint; got no pytorch:CHECKPOINT"):
            fd.benchmark([net], shape="16x16", **{name: value})
