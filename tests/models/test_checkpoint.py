import pickle
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.models import FCN, load_model, read_checkpoint
from fcn_deploy.models.fcn import VARIANTS

IMAGE = torch.linspace(-1, 1, 3 * 40 * 50).reshape(1, 3, 40, 50)


def _same(net, path):
    with torch.inference_mode():
        torch.testing.assert_close(load_model(read_checkpoint(path))(IMAGE), net(IMAGE))


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_classes_and_width_are_told_by_the_tensors(make_net, checkpoint_file, variant):
    checkpoint = read_checkpoint(checkpoint_file(variant))
    assert (checkpoint.variant, checkpoint.num_classes, checkpoint.width) == (variant, 5, 0.0625)
    assert checkpoint.info.layout == "seed"
    assert len(checkpoint.info.sha256) == 64
    _same(make_net(VARIANTS[variant]), checkpoint_file(variant))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.floats(0.01, 0.2), variant=st.sampled_from(list(VARIANTS)))
def test_any_width_multiplier_is_told_by_the_tensors(tmp_path, width, variant):
    net = FCN(VARIANTS[variant], 3, width).eval()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    _same(net, tmp_path / "net.pth")


@pytest.mark.parametrize("variant", VARIANTS)
def test_fc6_and_fc7_load_as_pairs_and_as_plain_convolutions(make_net, tmp_path, variant):
    net = make_net(VARIANTS[variant])
    for name, rename in {
        "pairs": lambda key: key.replace("fc6.0.", "fc6.").replace("fc6.", "fc6.0."),
        "plain": lambda key: key.replace("fc6.0.", "fc6.").replace("fc7.0.", "fc7."),
    }.items():
        path = tmp_path / f"{name}.pth"
        torch.save({rename(key): tensor for key, tensor in net.state_dict().items()}, path)
        _same(net, path)


@pytest.mark.parametrize("wrap", ["state_dict", "model_state_dict", "model"])
def test_wrappers_and_prefixes_are_removed(make_net, tmp_path, wrap):
    net = make_net(8)
    path = tmp_path / "wrapped.pth"
    state = {f"module.{key}": tensor for key, tensor in net.state_dict().items()}
    torch.save({"epoch": 3, wrap: state, "optimizer": {"lr": 0.1}}, path)
    _same(net, path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_nested_prefixes_are_removed_in_any_order(make_net, tmp_path, prefix, suffix):
    net = make_net(8)
    path = tmp_path / f"net{suffix}"
    state = {prefix + key: tensor for key, tensor in net.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    _same(net, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.to_sparse(), "not a plain weight"),
        (lambda w: w.to("meta"), "not a plain weight"),
        (lambda w: (w * 100).to(torch.int8), "not a plain weight"),
        (lambda w: w.to(torch.complex64), "not a plain weight"),
        (lambda w: w[:1, :1, :1, :1].clone().expand(w.shape), "claims more values than it holds"),
        (lambda w: w / 0, "not finite"),
    ],
    ids=["sparse", "meta", "int8", "complex", "expanded", "infinite"],
)
def test_a_tensor_that_is_not_a_weight_is_refused_by_name(make_net, tmp_path, change, message):
    state = make_net(8).state_dict()
    state["conv3_1.0.weight"] = change(state["conv3_1.0.weight"])
    path = tmp_path / "odd.pth"
    torch.save(state, path)
    with pytest.raises(InputError, match=f"conv3_1.0.weight .*{message}|conv3_1.0.weight.*{message}"):
        read_checkpoint(path)


def test_a_tensor_that_claims_a_terabyte_is_refused_without_allocating_it(tmp_path, make_net):
    state = make_net(8).state_dict()
    state["score_fr.weight"] = torch.zeros(1, 1, 1, 1).expand(300_000, 1_000_000, 1, 1)
    path = tmp_path / "huge.pth"
    torch.save(state, path)
    with pytest.raises(InputError):
        read_checkpoint(path)


def test_half_precision_becomes_float32(make_net, tmp_path):
    net = make_net(16)
    path = tmp_path / "half.pth"
    torch.save({key: tensor.half() for key, tensor in net.state_dict().items()}, path)
    model = load_model(read_checkpoint(path))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


def test_a_safetensors_file_loads_with_its_spec(make_net, tmp_path):
    net = make_net(8)
    names = ("a", "b", "c", "d", "e")
    spec = ModelSpec("fcn8s", 8, 0.0625, 5, names, default_palette(5), ignore_index=11)
    path = tmp_path / "net.safetensors"
    save_file(net.state_dict(), path, metadata={METADATA_KEY: spec.dumps()})
    assert read_checkpoint(path).spec == spec
    _same(net, path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(make_net, tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    state = make_net(8).state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="truncated") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04 nearly a zip"])
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_checkpoint(path)


class _Exploit:
    def __reduce__(self):
        return sys.exit, (99,)


def test_code_in_a_pickle_is_never_run(tmp_path):
    for name, save in {"zip.pth": torch.save, "bare.pth": lambda o, p: p.write_bytes(pickle.dumps(o))}.items():
        path = tmp_path / name
        save({"state_dict": _Exploit()}, path)
        with pytest.raises(InputError, match="never run"):
            read_checkpoint(path)


def test_a_whole_pickled_module_is_refused_with_what_to_save_instead(make_net, tmp_path):
    path = tmp_path / "module.pth"
    torch.save(make_net(8), path)
    with pytest.raises(InputError, match=r"model\.state_dict\(\)"):
        read_checkpoint(path)


def test_every_missing_unexpected_and_misshapen_key_is_listed(make_net, tmp_path):
    state = make_net(8).state_dict()
    del state["conv3_2.0.bias"], state["fc7.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["score_pool4_fr.weight"] = torch.zeros(5, 7, 1, 1)
    path = tmp_path / "odd.pth"
    torch.save(state, path)
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "missing: conv3_2.0.bias, fc7.weight" in message
    assert "unexpected: extra.weight" in message
    assert "misshapen: score_pool4_fr.weight [5, 7, 1, 1] instead of [5, 32, 1, 1]" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "a classifier"),
        ({"backbone.0.weight": torch.zeros(64, 3, 3, 3)}, "key layout"),
        ({"upscore8.weight": torch.zeros(1), "score_fr.weight": torch.zeros(())}, "key layout"),
        ({"weights": [1, 2, 3]}, "no state_dict"),
        ([torch.zeros(1)], "no state_dict"),
        ({}, "a dict with no keys"),
    ],
)
def test_an_unknown_layout_is_refused(tmp_path, content, expected):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(InputError, match=expected):
        read_checkpoint(path)


def test_a_checkpoint_of_another_variant_is_refused(checkpoint_file):
    with pytest.raises(InputError, match="got fcn8s; expected fcn16s"):
        read_checkpoint(checkpoint_file("fcn8s"), "fcn16s")


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_checkpoint(tmp_path / "nowhere.pth")


def test_the_real_checkpoint_loads(camvid):
    checkpoint = read_checkpoint(camvid / "fcn8s_camvid.pth")
    assert (checkpoint.variant, checkpoint.num_classes, checkpoint.width) == ("fcn8s", 11, 1.0)
    load_model(checkpoint)
