"""What a reader of docs/troubleshooting.md has in the folder: a net that works, and inputs with typical mistakes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import fcn_deploy as fd
from fcn_deploy.demo import CLASSES, EVALUATION_SEEDS, checkpoint_path, write_scenes
from fcn_deploy.models import read_checkpoint
from tests.support.videos import make_video, moving


def write_workplace(folder: Path) -> None:
    """Writes a checkpoint, its exported model and engine, images with ground truth, and what is wrong with others."""
    write_scenes(folder / "street", EVALUATION_SEEDS[:3], (96, 128))
    shutil.copytree(folder / "street" / "images", folder / "frames")
    torch.save(dict(read_checkpoint(checkpoint_path()).state), folder / "fcn8s.pth")
    model = fd.export(folder / "fcn8s.pth", normalization="imagenet", output=folder / "fcn8s.onnx")
    fd.build_engine(model, output=folder / "fcn8s.fp32.onnx")
    _write_checkpoints(folder)
    _write_engines(folder)
    _write_ground_truth(folder)


def _write_checkpoints(folder: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 537000000\n"
    (folder / "pointer.pth").write_text(pointer)
    (folder / "page.pth").write_text("<!DOCTYPE html><html><head><title>Sign in</title></head></html>")
    other = {"layer1.0.conv1.weight": torch.zeros(64, 3, 3, 3), "fc.bias": torch.zeros(10)}
    torch.save(other, folder / "resnet.pth")
    (folder / "seven.csv").write_text("\n".join(CLASSES[:7]) + "\n")
    (folder / "twice.csv").write_text("\n".join([*CLASSES[:3], CLASSES[0], *CLASSES[4:]]))


def _write_engines(folder: Path) -> None:
    engine = folder / "fcn8s.fp32.onnx"
    (folder / "copied").mkdir()
    shutil.copy(engine, folder / "copied")
    (folder / "changed.onnx").write_bytes(engine.read_bytes()[:-1] + b"x")
    shutil.copy(f"{engine}.json", folder / "changed.onnx.json")
    (folder / "empty").mkdir()
    (folder / "cut.mp4").write_bytes(make_video(folder / "cut.mp4", moving(4)).read_bytes()[:800])


def _write_ground_truth(folder: Path) -> None:
    def write(name: str, change: Callable[[Any], Any], ending: str = ".png") -> None:
        (folder / name).mkdir()
        for path in sorted((folder / "street" / "labels").iterdir()):
            changed = change(np.asarray(Image.open(path)).astype(np.int32))
            kind = np.uint16 if changed.max() > 255 else np.uint8
            Image.fromarray(changed.astype(kind)).save(folder / name / f"{path.stem}{ending}")

    write("jpeg", lambda truth: truth, ".jpg")
    write("from_1", lambda truth: np.where(truth == 255, 255, truth + 1))
    write("suffixed", lambda truth: truth, "_labelIds.png")
    write("instances", lambda truth: truth * 100 + np.arange(truth.size).reshape(truth.shape) % 97)
    write("unlabelled", lambda truth: np.full_like(truth, 255))
    write("half", lambda truth: truth[::2, ::2])
    write("few", lambda truth: truth)
    (folder / "few" / "scene_200001.png").unlink()
