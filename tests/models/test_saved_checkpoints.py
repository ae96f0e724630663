"""Checkpoints as people save them: what loads, and what is called what it is."""

import gzip
import logging
import pickle
import resource
import time
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.models import FCN, load_model, read_checkpoint
from fcn_deploy.models.custom import load_custom
from fcn_deploy.models.weights_options import WeightsOptions
from tests.support import checkpoints as forms

NET = "tests.support.checkpoints:Net"
IMAGE = torch.linspace(-1, 1, 3 * 20 * 24).reshape(1, 3, 20, 24)


def _logits(net):
    with torch.inference_mode():
        return net.eval()(IMAGE)


@pytest.fixture(scope="module")
def right():
    net = forms.Net()
    net.load_state_dict(forms.state())
    return _logits(net)


@pytest.fixture
def saved(tmp_path):
    def save(content, **options):
        path = tmp_path / "net.pth"
        torch.save(content, path, **options)
        return path

    return save


@pytest.mark.parametrize("form", forms.TAKEN)
def test_a_form_loads_with_the_right_weights(saved, right, form):
    found = load_custom(NET, saved(forms.TAKEN[form]())).module
    assert torch.equal(_logits(found), right)


def test_the_old_format_and_half_precision_load(saved, right):
    path = saved(forms.state(), _use_new_zipfile_serialization=False)
    assert torch.equal(_logits(load_custom(NET, path).module), right)
    halves = {key: value.half() for key, value in forms.state().items()}
    torch.testing.assert_close(_logits(load_custom(NET, saved(halves)).module), right, rtol=0.01, atol=0.01)


def test_safetensors_under_another_name_and_with_a_prefix_load(tmp_path, right):
    path = tmp_path / "net.bin"
    save_file(dict(forms.under("model.")), path)
    assert torch.equal(_logits(load_custom(NET, path).module), right)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("kind", [forms.WeightNormed, forms.OldWeightNormed])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_weight_normalisation_of_any_age_loads_by_torchs_own_migration(saved, kind, prefix):
    net = kind()
    path = saved(forms.under(prefix, net.state_dict()))
    found = load_custom("tests.support.checkpoints:WeightNormed", path).module
    torch.testing.assert_close(_logits(found), _logits(net))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("maker", ["compiled", "compiled_inside"])
def test_a_compiled_net_is_unwrapped(saved, right, maker):
    module = load_custom(f"tests.support.checkpoints:{maker}", saved(forms.state())).module
    assert type(module.net) is forms.Net
    assert not any("_orig_mod" in name for name, _ in module.named_modules())
    assert torch.equal(_logits(module), right)


@pytest.mark.parametrize("form", forms.REFUSED)
def test_a_form_is_refused_by_its_name_in_one_line(saved, form):
    content, words = forms.REFUSED[form]
    with pytest.raises(InputError, match=words) as caught:
        load_custom(NET, saved(content()))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("ema_beside", {"key": "model_ema"}),
        ("ema_nested", {"key": "model_ema"}),
        ("ema_nested", {"key": "model_ema.state_dict"}),
        ("ema_under_one_key", {"prefix": "model_ema"}),
        ("ema_under_one_key", {"prefix": "model_ema."}),
        ("ema_under_one_key", {"ignore": ("model.*",)}),
        ("auxiliary_head", {"ignore": ("aux_classifier.*",)}),
        ("lightning_with_loss", {"ignore": ("criterion.*",)}),
        ("lightning_with_loss", {"prefix": "net"}),
        ("list_beside", {"ignore": ("mask_*",)}),
        ("shadow_params", {"key": "state_dict"}),
        ("ema_of_a_callback", {"key": "callbacks.EMA{0.9}"}),
        ("same_net_twice", {"key": "best_state_dict"}),
    ],
)
def test_with_what_the_error_says_it_loads(saved, right, form, options):
    path = saved(forms.REFUSED[form][0]())
    assert torch.equal(_logits(load_custom(NET, path, part=WeightsOptions(**options)).module), right)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": "ema"}, "no entry 'ema' with weights; got model; fix: .*`weights_key=\"model\"`"),
        ({"prefix": "net"}, "no tensor under `weights_prefix`; got net\\.; expected backbone\\., head\\."),
        ({"ignore": ("aux*",)}, "nothing that `weights_ignore` names; got aux\\*; expected .*backbone, head"),
    ],
)
def test_an_option_that_names_nothing_is_refused(saved, options, words):
    with pytest.raises(InputError, match=words):
        load_custom(NET, saved({"model": forms.state()}), part=WeightsOptions(**options))


def test_options_are_not_empty():
    assert WeightsOptions.of(None, None, "a.*") == WeightsOptions.of(None, None, ["a.*"])
    for values in (("", None, ()), (None, "", ()), (None, None, ("a", ""))):
        with pytest.raises(UsageError, match="is empty"):
            WeightsOptions.of(*values)


def test_a_prefix_that_is_left_out_is_said(saved, caplog):
    with caplog.at_level(logging.INFO, "fcn_deploy"):
        load_custom(NET, saved(forms.TAKEN["prefixes"]()))
    assert "every key begins with model.net., which is left out" in caplog.text


@pytest.mark.parametrize("prefix", ["net.", "model.", "model._orig_mod.net."])
def test_a_published_net_loads_under_a_prefix(make_net, saved, prefix):
    net = make_net(8)
    found = load_model(read_checkpoint(saved({"params": forms.under(prefix, net.state_dict())})))
    assert isinstance(found, FCN)
    assert torch.equal(_logits(found), _logits(net))


def test_extra_keys_beside_a_published_net_are_named(make_net, saved):
    state = make_net(8).state_dict()
    path = saved({**forms.under("net.", state), "criterion.weight": torch.ones(3)})
    with pytest.raises(
        InputError, match=r"`weights_ignore=\"criterion\.\*\"`, or take `weights_prefix=\"net\.\"` only"
    ):
        read_checkpoint(path)
    for options in (WeightsOptions(ignore=("criterion.*",)), WeightsOptions(prefix="net")):
        assert read_checkpoint(path, weights=options).num_classes == 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>404", "an HTML page"),
        (b"\n  <html><body>sign in", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "an XML document"),
        (b'{"message": "Not Found"}', "a JSON document"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n",
            "a Git-LFS pointer.*git lfs pull",
        ),
        (gzip.compress(b"weights", mtime=0), "a gzip archive"),
        (bytes(5000), "zeros only"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
        (b'{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}', "the index of weights that are"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(tmp_path, content, words, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"net{suffix} is no checkpoint; got {words}") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello\n", "a text file"),
        (b"a,b\n1,2\n", "a text file"),
        (b"PK\x03", "the first 3 bytes of a zip archive"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.13.0", "an ONNX model"),
        (bytes(range(200, 256)), "content of an unknown format"),
        (
            pickle.dumps({"a": 1}, 4),
            "a pickle of protocol 4, not one of torch.save; code from a checkpoint is never run",
        ),
    ],
)
def test_other_content_is_called_what_it_is_before_torch_sees_it(tmp_path, content, words):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"net.pth is no checkpoint; got {words}"):
        read_checkpoint(path)


def test_content_decides_not_the_suffix(tmp_path, right):
    torch.save(forms.state(), tmp_path / "net.safetensors")
    assert torch.equal(_logits(load_custom(NET, tmp_path / "net.safetensors").module), right)


def test_a_part_of_split_weights_is_called_so(tmp_path):
    part = dict(list(forms.state().items())[:5])
    save_file(part, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(InputError, match=r"got part 1 of 2, without .*head\.weight.*; fix: join the parts"):
        load_custom(NET, tmp_path / "model-00001-of-00002.safetensors")


def test_objects_beside_the_weights_do_not_matter_in_the_old_format_either(tmp_path, right):
    path = tmp_path / "net.ckpt"
    torch.save(forms.TAKEN["lightning_namespace"](), path, _use_new_zipfile_serialization=False)
    assert torch.equal(_logits(load_custom(NET, path).module), right)


def test_a_net_beside_a_loss_is_said_in_a_few_words(saved):
    with pytest.raises(InputError) as caught:
        load_custom(NET, saved(forms.REFUSED["lightning_with_loss"][0]()))
    assert caught.value.got == "the net's tensors under net., beside criterion.weight"
    assert caught.value.fix.endswith('`weights_ignore="criterion.*"`, or take `weights_prefix="net."` only')


@pytest.mark.filterwarnings("error")
def test_loading_warns_of_nothing(saved):
    dtype = torch.float8_e4m3fn
    load_custom(
        NET, saved({key: value.to(dtype) if "weight" in key else value for key, value in forms.state().items()})
    )


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_archives_and_folders_are_called_what_they_are(tmp_path):
    net = forms.Net().eval()
    torch.jit.save(torch.jit.trace(net, IMAGE), str(tmp_path / "script.pt"))
    with pytest.raises(InputError, match="got TorchScript"):
        read_checkpoint(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "many.pth", "w") as archive:
        archive.writestr("net.pth", b"weights")
    with pytest.raises(InputError, match="a zip archive of 1 files"):
        read_checkpoint(tmp_path / "many.pth")
    with pytest.raises(InputError, match="a folder"):
        read_checkpoint(tmp_path)


BOMBS = {
    "deep": (lambda path: forms.zipped(path, forms.deep_key(5000)), "nested more than 100 deep"),
    "deeper": (lambda path: forms.zipped(path, forms.deep_key(5_000_000)), "nested more than 100 deep"),
    "doubled": (lambda path: forms.zipped(path, forms.doubled_key(40)), "millions of elements"),
    "huge storage": (forms.huge_storage, "tensors of 1,099,511,627,776 values in a file"),
    "unpacked": (
        lambda path: forms.zipped(
            path, pickle.dumps({}, 2), ("data/0", bytes(200 << 20)), compression=zipfile.ZIP_DEFLATED
        ),
        "bytes once unpacked",
    ),
    "unpacked pickle": (
        lambda path: forms.zipped(path, b"\x80\x02" + b"]" * (50 << 20) + b".", compression=zipfile.ZIP_DEFLATED),
        "bytes once unpacked",
    ),
    "many objects": (lambda path: forms.zipped(path, b"\x80\x02" + b"]" * 30_000_000 + b"."), "more than .* objects"),
    "equal hashes": (
        lambda path: forms.zipped(path, forms.pickled("}(" + "in" * 100_000 + "u")),
        "more than 10,000 numbers or tuples as keys",
    ),
    "equal hashes one by one": (
        lambda path: forms.zipped(path, forms.pickled("}" + "ins" * 100_000)),
        "more than 10,000 numbers or tuples as keys",
    ),
    "equal hashes of a set": (
        lambda path: forms.zipped(path, forms.pickled("S](" + "i" * 100_000 + "e1R")),
        "more than 10,000 numbers or tuples as keys",
    ),
    "equal hashes of a counter": (
        lambda path: forms.zipped(path, forms.pickled("C(" + "i" * 100_000 + "t1R")),
        "more than 10,000 numbers or tuples as keys",
    ),
    "huge buffer": (lambda path: forms.zipped(path, forms.pickled("BI1R")), "a call of builtins.bytearray with a size"),
    "huge tensor": (lambda path: forms.zipped(path, forms.pickled("TI1R")), "a call of torch.FloatTensor with a size"),
    "huge storage without a file": (
        lambda path: forms.zipped(path, forms.pickled("UI1N")),
        "a call of torch.storage.UntypedStorage with a size",
    ),
    "huge buffer by another call": (
        lambda path: forms.zipped(path, forms.pickled("F(BnI1ntR")),
        "a call of builtins.bytearray by another function",
    ),
    "one list in many sets": (
        lambda path: forms.zipped(path, forms.pickled("](" + "n" * 10_000 + "ep(" + "Sg1R" * 5_000 + "t")),
        "calls with millions of elements",
    ),
    "one text many times": (
        lambda path: forms.zipped(path, forms.pickled("xp(" + "Egl2R" * 5_000 + "t")),
        "texts of .* characters in a file",
    ),
    "slow codec": (lambda path: forms.zipped(path, forms.pickled("Exy2R")), "a codec that torch does not write"),
    "many classes": (
        lambda path: forms.zipped(
            path, b"\x80\x02(" + b"".join(b"cm%d\nx\n)R" % index for index in range(10_000)) + b"t."
        ),
        "objects of .* classes",
    ),
    "many calls": (
        lambda path: forms.zipped(path, forms.pickled("(" + "D)R" * 90_000 + "t")),
        "more than .* objects",
    ),
    "many storages": (forms.many_storages, "more than .* objects"),
    "cut off": (lambda path: forms.zipped(path, b"\x80\x02}"), "truncated"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_would_exhaust_the_machine_is_refused_in_one_line(tmp_path, kind):
    write, words = BOMBS[kind]
    path = write(tmp_path / "net.pth")
    started = time.perf_counter()
    with pytest.raises(InputError, match=words) as caught:
        read_checkpoint(path)
    assert time.perf_counter() - started < 10
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_takes_no_more_memory_than_twice_its_size(tmp_path):
    path = BOMBS["unpacked"][0](tmp_path / "net.pth")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="bytes once unpacked"):
        read_checkpoint(path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown <= 2 * path.stat().st_size + (8 << 20)


def test_deep_keys_in_the_old_format_are_refused(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(forms.deep_key(1_000_000))
    with pytest.raises(InputError, match="nested more than 100 deep"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "steps",
    ["}" * 390_000, "]" * 390_000, "D)R" * 60_000, "x" * 700, "Vg1R" * 50_000, "In" * 390_000],
    ids=lambda s: s[:4],
)
def test_what_is_just_below_the_limits_is_read_in_seconds(tmp_path, steps):
    path = forms.zipped(tmp_path / "net.pth", forms.pickled(f"np({steps}t"))
    started = time.perf_counter()
    with pytest.raises(InputError, match="no state_dict"):
        read_checkpoint(path)
    assert time.perf_counter() - started < 10


def test_many_nets_of_one_tensor_each_are_refused_in_seconds(tmp_path):
    weights = {f"net{index}.weight": torch.ones(1) for index in range(5_000)}
    torch.save(weights, tmp_path / "net.pth")
    started = time.perf_counter()
    with pytest.raises(InputError, match="unknown key layout"):
        read_checkpoint(tmp_path / "net.pth")
    assert time.perf_counter() - started < 10
