"""Trains an FCN, or a net of your own, on images and their labels: a script to start from, not a framework.

    python tools/train.py --images frames --labels truth --class-names classes.csv --vgg16 vgg16.pth -o net.safetensors

The net it writes carries its classes and its normalisation, so that `fcn-deploy export` and `deploy` need no more than
the file. docs/training.md says how to lay out the data, and what to expect.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.cli.app import with_flags
from fcn_deploy.cli.console import print_table
from fcn_deploy.cli.options.types import PATH, SizeType
from fcn_deploy.cli.progress import TerminalProgress
from fcn_deploy.data.classes import read_class_names
from fcn_deploy.errors import FcnDeployError, UsageError
from fcn_deploy.evaluation.accuracy import Matrix, confusion_matrix, mean_iou, pixel_accuracy
from fcn_deploy.models.fcn import VARIANTS
from fcn_deploy.progress import Progress
from fcn_deploy.reporting.tables import accuracy_table
from fcn_deploy.runtime.image import normalize
from labelled import Crops, Labelled, split
from start import Start
from training import (
    adamw_groups,
    check_output,
    descend,
    find_device,
    rarity_weights,
    save_net,
    set_dropout,
    warmup_cosine,
)

_WEIGHT_DECAY = 1e-2
_CLIP = 1.0
_log = logging.getLogger("train")


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    Attributes:
        steps: Batches in all.
        batch: Crops in a batch.
        crop: Height and width of a crop.
        lr: Highest learning rate of the layers that start fresh.
        copied_lr: Highest learning rate of the layers that were copied.
        frozen_steps: For so many steps the trunk stays as it was copied.
        dropout: Share of channels dropped behind fc6 and fc7; None for what the net has.
        balance: Whether a pixel of a rare class counts more.
        every: Steps between evaluations.
        seed: Of fresh weights, crops and dropout.
        workers: Processes that read images; with 0 the one that trains does it.
        device: Where the net is.
    """

    steps: int
    batch: int
    crop: tuple[int, int]
    lr: float
    copied_lr: float
    frozen_steps: int
    dropout: float | None
    balance: bool
    every: int
    seed: int
    workers: int
    device: torch.device

    def __post_init__(self) -> None:
        if not 0 <= self.frozen_steps <= self.steps:
            raise UsageError("bad number of frozen steps", got=self.frozen_steps, expected=f"0..{self.steps}")

    def rate(self, step: int) -> float:
        """Returns the learning rates of a step as a share of the highest; a twentieth of the steps is warm-up."""
        return warmup_cosine(step, self.steps, self.steps // 20)


def class_weights(training: Labelled, classes: tuple[str, ...], balance: bool, progress: Progress) -> Tensor | None:
    """Checks the training images, warns of classes they do not show, and returns the weights of the loss."""
    counts = training.count_pixels("checking the training images", progress)
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    if absent:
        _log.warning("no pixel of the training images is of: %s; the net cannot learn it", ", ".join(absent))
    return rarity_weights(counts / counts.sum()) if balance else None


@torch.no_grad()
def evaluate(model: nn.Module, held_out: Labelled, normalization: Normalization, device: torch.device) -> Matrix:
    """Returns the confusion matrix of the net over whole images, int64 [C, C]."""
    model.eval()
    matrix = np.zeros((held_out.num_classes,) * 2, np.int64)
    for index in range(len(held_out)):
        image, truth = held_out.read(index)
        logits = model(torch.from_numpy(normalize(image[np.newaxis], normalization)).to(device))
        labels = logits.argmax(1)[0].cpu().numpy()
        matrix += confusion_matrix(truth, labels, held_out.num_classes, held_out.ignore_index)
    model.train()
    return matrix


def train(
    start: Start, spec: ModelSpec, recipe: Recipe, training: Labelled, held_out: Labelled, output: Path,
    progress: Progress,
) -> Matrix:  # fmt: skip
    """Trains to the end of the recipe; the best net so far is at `output` from the first evaluation on.

    Returns:
        The confusion matrix of the best net over the held-out images, int64 [C, C].

    Raises:
        InputError: An image or its labels do not fit, the loss is not finite, or the output cannot be written.
    """
    weights = class_weights(training, spec.classes, recipe.balance, progress)
    held_out.count_pixels("checking the held-out images", progress)
    device, model = recipe.device, start.model
    model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if recipe.dropout is not None:
        set_dropout(model, recipe.dropout)
    loss_of = nn.CrossEntropyLoss(weights, ignore_index=training.ignore_index).to(device)
    optimizer = torch.optim.AdamW(
        adamw_groups(start.parameters(copied=False), recipe.lr, _WEIGHT_DECAY)
        + adamw_groups(start.parameters(copied=True), recipe.copied_lr, _WEIGHT_DECAY)
    )
    highest = [group["lr"] for group in optimizer.param_groups]
    crops = Crops(training, recipe.steps * recipe.batch, recipe.crop, spec.normalization, recipe.seed)
    loader = DataLoader(crops, recipe.batch, num_workers=recipe.workers)
    best: Matrix | None = None
    losses: list[float] = []
    began = time.monotonic()
    for step, (images, truths) in enumerate(progress.track(loader, recipe.steps, "training")):
        for group, lr in zip(optimizer.param_groups, highest, strict=True):
            group["lr"] = lr * recipe.rate(step)
        for parameter in start.trunk():
            parameter.requires_grad_(step >= recipe.frozen_steps)
        # A batch in which nothing is labelled has no loss: the mean over no pixel is NaN.
        if (truths != training.ignore_index).any():
            loss = loss_of(model(images.to(device, memory_format=torch.channels_last)), truths.to(device))
            losses.append(descend(loss, model, optimizer, _CLIP))
        if (step + 1) % recipe.every and step + 1 != recipe.steps:
            continue
        matrix = evaluate(model, held_out, spec.normalization, device)
        better = best is None or bool(mean_iou(matrix) > mean_iou(best))
        if better:
            best = matrix
            save_net(model, spec, output)
        progress.stage(
            f"step {step + 1}/{recipe.steps}  loss {np.mean(losses or [np.nan]):.4f}  mIoU {mean_iou(matrix):.2f}  "
            f"pixel accuracy {pixel_accuracy(matrix):.2f}  {time.monotonic() - began:.0f} s"
            + ("  written" if better else "")
        )
        losses.clear()
    assert best is not None
    return best


def _refuse_options_of_fcn(model: str | None, **options: object) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if model is not None and given:
        raise UsageError("options of an FCN for a net of your own", got=f"--model with {', '.join(given)}")


@click.command(context_settings={"show_default": True})
@click.option("--images", type=PATH, required=True, help="Folder of images, of any sizes.")
@click.option("--labels", type=PATH, required=True, help="Folder of labels of the same names: indices or colours.")
@click.option("--class-names", type=PATH, required=True, help="One class a line: name, or name,red,green,blue (CSV).")
@click.option("--ignore-index", type=int, default=255, help="The label that means 'not labelled'.")
@click.option("--val-images", type=PATH, help="Held-out images.  [default: every fifth image]", show_default=False)
@click.option("--val-labels", type=PATH, help="Their labels.")
@click.option("-o", "--output", type=PATH, required=True, help="The .safetensors file to write.")
@click.option("--variant", type=click.Choice(list(VARIANTS)), help="Of the FCN.  [default: fcn8s]")
@click.option("--model", help="What makes a net of your own: package.module:callable. Its code runs.")
@click.option("--width", type=click.FloatRange(0, min_open=True), help="Of the channels.  [default: --weights', or 1]")
@click.option("--fc6-kernel", type=click.Choice([1, 7]), help="Size of fc6.  [default: --weights', or 1]")
@click.option("--vgg16", type=PATH, help="torchvision's ImageNet weights, to start from.")
@click.option("--weights", type=PATH, help="A trained net to start from, such as a coarser one.")
@click.option(
    "--frozen-steps", type=click.IntRange(0), help="Steps with the trunk as copied.  [default: a tenth, with --vgg16]"
)
@click.option("--steps", type=click.IntRange(1), default=4000, help="Batches in all.")
@click.option("--batch", type=click.IntRange(1), default=4, help="Crops in a batch.")
@click.option("--crop", type=SizeType(), default="320x320", help="Size of a crop.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, help="Of layers that start fresh.")
@click.option("--copied-lr", type=click.FloatRange(0), default=1e-4, help="Of layers with copied weights.")
@click.option(
    "--dropout", type=click.FloatRange(0, 1, max_open=True), help="Of channels.  [default: 0.5, or as --model has it]"
)
@click.option("--balance/--no-balance", default=True, help="Whether a pixel of a rare class counts more.")
@click.option("--every", type=click.IntRange(1), default=400, help="Steps between evaluations.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of fresh weights, crops and dropout.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: torch's]")
@click.option("--workers", type=click.IntRange(0), default=0, help="Processes that read images.")
@click.option("--device", default="cpu", help="cpu, cuda or cuda:N.")
def main(
    images: Path, labels: Path, class_names: Path, ignore_index: int, val_images: Path | None, val_labels: Path | None,
    output: Path, variant: str | None, model: str | None, width: float | None, fc6_kernel: int | None,
    vgg16: Path | None, weights: Path | None, frozen_steps: int | None, dropout: float | None, threads: int | None,
    device: str, **options: Any,
) -> None:  # fmt: skip
    """Train an FCN, or a net of your own, on a folder of images and a folder of labels.

    The net that does best on the held-out images is kept at OUTPUT; interrupting leaves the best so far.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    progress = TerminalProgress()
    try:
        check_output(output, weights, vgg16)
        _refuse_options_of_fcn(
            model, variant=variant, width=width, fc6_kernel=fc6_kernel, vgg16=vgg16, frozen_steps=frozen_steps
        )
        if threads is not None:
            torch.set_num_threads(threads)
        if frozen_steps is None:
            frozen_steps = options["steps"] // 10 if vgg16 else 0
        if dropout is None and model is None:
            dropout = 0.5
        recipe = Recipe(**options, frozen_steps=frozen_steps, dropout=dropout, device=find_device(device))
        classes, palette = read_class_names(class_names)
        training, held_out = split(images, labels, val_images, val_labels, palette, ignore_index)
        torch.manual_seed(recipe.seed)
        if model is None:
            start = Start.make(variant or "fcn8s", len(classes), width, fc6_kernel, vgg16, weights)
        else:
            start = Start.custom(model, len(classes), weights)
        if frozen_steps and not start.has_copied_trunk:
            raise UsageError(
                "a trunk of random weights would be frozen",
                got=f"--frozen-steps {frozen_steps}",
                fix="start from --vgg16 or --weights",
            )
        spec = start.spec(classes, palette, ignore_index)
        progress.stage(f"{len(training)} images to train on, {len(held_out)} held out; {len(classes)} classes")
        progress.stage(f"{start}; trunk frozen for {frozen_steps} of {recipe.steps} steps")
        best = train(start, spec, recipe, training, held_out, output, progress)
        print_table(accuracy_table("held-out images", classes, best))
        click.echo(f"{output}: mIoU {mean_iou(best):.2f}, pixel accuracy {pixel_accuracy(best):.2f}")
    except FcnDeployError as error:
        click.echo(with_flags(f"error: {error}"), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        left = f"{output} is as it was last written" if output.exists() else "nothing was written"
        click.echo(f"interrupted; {left}", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
