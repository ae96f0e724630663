"""One small net, and its weights in the forms in which people save them."""

from __future__ import annotations

import argparse
import copy
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
    "averaged": averaged,
    "without_num_batches_tracked": lambda: OrderedDict(
        (key, value) for key, value in state().items() if "num_batches" not in key
    ),
    "numpy_scalars": lambda: {"model": state(), "best_miou": np.float64(0.5), "epoch": np.int64(3)},
}

# What does not, and what the error says.
REFUSED = {
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
