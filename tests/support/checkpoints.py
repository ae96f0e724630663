"""One small net, and its weights in the forms in which people save them."""

from __future__ import annotations

import argparse
import copy
import itertools
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Net(nn.Module):
    """An encoder of two blocks, four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Block(3, 8), nn.MaxPool2d(2, ceil_mode=True), Block(8, 16))
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        return F.interpolate(self.head(self.backbone(x)), x.shape[-2:], mode="bilinear")


class WeightNormed(nn.Module):
    """A convolution with weight normalisation, as torch has it now."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.head(F.relu(self.conv(x)))


class OldWeightNormed(WeightNormed):
    """The same, as torch had it until 2.0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.weight_norm(nn.Conv2d(3, 8, 3, padding=1))


def compiled():
    """A maker whose net is compiled."""
    return torch.compile(Net())


def compiled_inside():
    """A maker of a net with a part that is compiled, and that compiles itself."""
    net = Net()
    net.backbone = torch.compile(net.backbone)
    net.compile()
    return net


def state():
    """The weights that are right, the same at each call."""
    torch.manual_seed(0)
    net = Net()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.1 * torch.rand_like(tensor)
    return net.state_dict()


def under(prefix, weights=None):
    return OrderedDict((prefix + key, value) for key, value in (weights or state()).items())


def inside(old, new):
    return OrderedDict((key.replace(old, new), value) for key, value in state().items())


def other():
    return OrderedDict((key, value * 0) for key, value in state().items())


def averaged():
    net = Net()
    net.load_state_dict(state())
    return torch.optim.swa_utils.AveragedModel(copy.deepcopy(net)).state_dict()


# What loads as it is.
TAKEN = {
    "plain": state,
    "module": lambda: under("module."),
    "module_compiled": lambda: under("module._orig_mod."),
    "compiled_inside": lambda: inside("backbone.", "backbone._orig_mod."),
    "fsdp": lambda: inside("backbone.", "backbone._fsdp_wrapped_module."),
    "checkpointed": lambda: inside("conv.", "_checkpoint_wrapped_module.conv."),
    "everywhere": lambda: under("module.", inside("bn.", "_orig_mod.module.bn.")),
    "lightning": lambda: {
        "epoch": 3,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": under("model."),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "hyper_parameters": {"lr": 0.1},
    },
    "lightning_namespace": lambda: {
        "state_dict": under("model."),
        "hyper_parameters": argparse.Namespace(lr=0.1),
    },
    "prefix": lambda: under("net."),
    "prefixes": lambda: under("model.module.net."),
    **{
        f"wrapper_{key}": lambda key=key: {key: state(), "epoch": 1}
        for key in ("net", "params", "module", "state_dict_ema", "ema_state_dict", "anything")
    },
    "nested": lambda: {"checkpoint": {"state_dict": state()}},
    "optimizer_beside": lambda: {
        "model": state(),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []},
        "best": torch.tensor(0.5),
        "scaler": {"scale": torch.tensor(1.0), "growth_factor": 2.0, "growth_interval": 2000},
    },
    "random_state_beside": lambda: {
        "model": state(),
        "rng": torch.get_rng_state(),
        "class_weights": torch.ones(4),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
    },
    "other_nets_beside": lambda: {"state_dict": state(), "discriminator": {"score.weight": torch.ones(3)}},
    "semantic": lambda: {"semantic": state(), "schema": {"version": 3}},
    "averages_of_training": lambda: {
        "model": state(),
        "optim_state": {"shadow_params": [torch.ones(3)], "state": {0: {"ema": torch.ones(3)}}},
        "loss_ema": torch.tensor([0.5]),
        "ema_decay": 0.99,
    },
    "averaged": averaged,
    "without_num_batches_tracked": lambda: OrderedDict(
        (key, value) for key, value in state().items() if "num_batches" not in key
    ),
    "numpy_scalars": lambda: {"model": state(), "best_miou": np.float64(0.5), "epoch": np.int64(3)},
}

# What does not, and what the error says.
REFUSED = {
    "shadow_params": (
        lambda: {
            "state_dict": state(),
            "ema": {"decay": 0.9, "shadow_params": [torch.ones(3)], "collected_params": None},
        },
        r"plain and averaged \(EMA\) weights; got state_dict, and ema\.shadow_params, a list; .*"
        r'`weights_key="state_dict"`.*copy them into the net in your own code',
    ),
    "shadow_params_alone": (
        lambda: {"decay": 0.9, "shadow_params": [torch.ones(3)]},
        "holds no state_dict; got shadow_params, tensors without names",
    ),
    "ema_of_a_callback": (
        lambda: {
            "state_dict": under("model.", other()),
            "callbacks": {"EMA{0.9}": {"ema_state_dict": under("model.")}},
        },
        r"plain and averaged \(EMA\) weights; got state_dict, and callbacks\.EMA\{0\.9\}, a dict; .*"
        r'`weights_key="callbacks\.EMA\{0\.9\}"`',
    ),
    "same_net_twice": (
        lambda: {"state_dict": other(), "best_state_dict": state()},
        "several sets of weights; got state_dict, best_state_dict",
    ),
    "whole_module_in_a_dict": (
        lambda: {"model": Net(), "epoch": 1},
        r"a whole module, and code from a checkpoint is never run; got model, an object of \S*\.Net",
    ),
    "arrays": (
        lambda: {"state_dict": {key: value.numpy() for key, value in state().items()}},
        "holds arrays of numpy, not tensors; got 14 of them; .*torch.from_numpy",
    ),
    "nothing": (dict, "holds no state_dict; got a dict with no keys"),
    "other_sizes": (
        lambda: {**state(), "head.weight": torch.ones(8, 16, 1, 1)},
        r"got misshapen: head\.weight \[8, 16, 1, 1\] instead of \[4, 16, 1, 1\]; fix: name the checkpoint that was",
    ),
    "another_net": (
        lambda: {f"features.{index}.weight": torch.ones(3) for index in range(30)},
        "fix: the checkpoint is of another net",
    ),
    "complex": (lambda: {key: value + 0j for key, value in state().items()}, "not a plain weight; got torch.complex64"),
    "ema_beside": (
        lambda: {"model": other(), "model_ema": state(), "epoch": 3},
        r"plain and averaged \(EMA\) weights; got model, model_ema; .*`weights_key=\"model_ema\"`",
    ),
    "ema_nested": (
        lambda: {"model": under("module.", other()), "model_ema": {"state_dict": state()}},
        r"got model, model_ema; .*`weights_key=\"model_ema\"`",
    ),
    "ema_under_one_key": (
        lambda: {"state_dict": {**under("model.", other()), **under("model_ema.")}},
        r"holds the net 2 times.*`weights_prefix=\"model\.\"` or `weights_prefix=\"model_ema\.\"`",
    ),
    "auxiliary_head": (
        lambda: {**state(), "aux_classifier.0.weight": torch.ones(4, 8, 1, 1)},
        r"unexpected: aux_classifier\.0\.weight; .*`weights_ignore=\"aux_classifier\.\*\"`",
    ),
    "lightning_with_loss": (
        lambda: {"state_dict": {**under("net."), "criterion.weight": torch.ones(4)}},
        r"`weights_ignore=\"criterion\.\*\"`",
    ),
    "list_beside": (
        lambda: {**state(), "mask_values": [0, 1]},
        r"mask_values \(a list\); expected tensors only; .*`weights_ignore=\"mask_values\"`",
    ),
    "whole_module": (Net, r"holds a whole module.*never run; got an object of .*Net"),
    "missing": (
        lambda: {key: value for key, value in state().items() if key != "head.bias"},
        r"missing: head\.bias; fix: save model\.state_dict\(\) of the whole net",
    ),
    "loop": (lambda: loop(), "a dict that holds itself"),
    "longer_loop": (lambda: loop(3), "holds no state_dict"),
    "long_key": (lambda: {"a." * 5000 + "weight": torch.ones(1)}, "keys of more than 2000 characters"),
    "many_parts": (lambda: {"a." * 500 + "weight": torch.ones(1)}, "does not fit"),
}


def loop(length=1):
    first = current = {}
    for _ in range(length - 1):
        current["state_dict"] = current = {}
    current["state_dict"] = first
    return first


def zipped(path: Path, pickled: bytes, *others: tuple[str, bytes], compression=zipfile.ZIP_STORED) -> Path:
    """Writes a file such as torch.save does, with any pickle in it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
        for name, data in others:
            archive.writestr(f"archive/{name}", data)
    return path


def deep_key(depth: int) -> bytes:
    """The pickle of a dict whose key is a tuple in a tuple, `depth` times."""
    return b"\x80\x02})" + b"\x85" * depth + b"Ns."


def doubled_key(levels: int) -> bytes:
    """The pickle of a dict whose key holds itself twice at each level: 2^levels elements to hash."""
    return b"\x80\x02})" + b"q\x00h\x00\x86" * levels + b"Ns."


def huge_storage(path: Path) -> Path:
    """A file of the old format that claims a storage of a terabyte."""
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    pid = data.index(b"cpu") + 3
    count = data.index(b"K\x01", pid)
    path.write_bytes(data[:count] + b"\x8a\x06" + struct.pack("<Q", 1 << 40)[:6] + data[count + 2 :])
    return path


def plain_pickle(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


_MODULUS = (1 << 61) - 1  # of Python's hash: the multiples of this number have one hash
_STEPS = {
    "S": b"cbuiltins\nset\n",
    "C": b"ccollections\nCounter\n",
    "D": b"ccollections\nOrderedDict\n",
    "B": b"cbuiltins\nbytearray\n",
    "E": b"c_codecs\nencode\n",
    "T": b"ctorch\nFloatTensor\n",
    "U": b"ctorch.storage\nUntypedStorage\n",
    "F": b"ctorch._tensor\n_rebuild_from_type_v2\n",
    "V": b"cmine\nThing\n",
    "I": b"\x8a\x06" + (10**11).to_bytes(6, "little"),
    "n": b"N",
    "x": b"X" + struct.pack("<I", 1000) + b"a" * 1000,
    "l": b"X" + struct.pack("<I", 6) + b"latin1",
    "y": b"X" + struct.pack("<I", 8) + b"punycode",
    "p": b"q\x00",
    "g": b"h\x00",
    "1": b"\x85",
    "2": b"\x86",
    "N": b"\x81",
}


def pickled(steps: str) -> bytes:
    """Returns a pickle of protocol 2, written step by step.

    Capitals name a class or function, `i` is a number that has the hash of all others, `I` a huge one, `x`, `l` and `y`
    are texts, `p` remembers what is on the stack and `g` gets it, `1` and `2` make tuples, `N` makes an object by
    `__new__`. Others are those of the pickle itself.
    """
    numbers = itertools.count(1)
    parts = []
    for step in steps:
        if step == "i":
            value = next(numbers) * _MODULUS
            content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            parts.append(b"\x8a" + bytes([len(content)]) + content)
        else:
            parts.append(_STEPS.get(step, step.encode()))
    return b"\x80\x02" + b"".join(parts) + b"."


def many_storages(path: Path) -> Path:
    """A file with more storages than nets have, each of no value."""
    step = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x05\x00\x00\x00%05dX\x03\x00\x00\x00cpuK\x00tQ"
    return zipped(path, b"\x80\x02(" + b"".join(step % index for index in range(60_000)) + b"t.")
