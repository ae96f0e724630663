"""Trains the slim FCN-8s that `--demo` ships, from scratch, on generated scenes, on a CPU.

The packaged checkpoint was made by

    python tools/train_demo.py --output fcn_deploy/demo/fcn8s_demo.safetensors

in about half an hour on two cores, and is measured again by the same command with `--evaluate-only`: mIoU 75.0 and
pixel accuracy 93.3 on 100 scenes that neither training nor the choice of the net has seen. Seeds are fixed; another
number of threads still changes the order of sums, and with it the last digits. A run that is given `--state` can be
killed and called again to go on where it stopped.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fcn_deploy.artifacts.normalization import TORCHVISION
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.demo import (
    CLASSES,
    DEFAULT_SIZE,
    EVALUATION_SEEDS,
    IGNORE_INDEX,
    PALETTE,
    TRAINING_SEEDS,
    checkpoint_path,
    make_scene,
)
from fcn_deploy.errors import FcnDeployError, InputError
from fcn_deploy.evaluation.accuracy import class_iou, confusion_matrix, mean_iou, pixel_accuracy
from fcn_deploy.files import check_writable, write_bytes
from fcn_deploy.models import FCN, load_model, read_checkpoint
from fcn_deploy.models.fcn import Stride
from training import adamw_groups, descend, rarity_weights, save_net, set_dropout, shuffled, warmup_cosine

Pixels = NDArray[np.uint8]
_STRIDE: Stride = 8
_CHUNK = 16
_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True)
class Recipe:
    """How the net is trained.

    Attributes:
        width: Channel multiplier.
        steps: Batches in all.
        batch: Crops in a batch.
        crop: Height and width of a crop.
        lr: Highest learning rate, reached after `warmup` steps and then let down along a cosine.
        warmup: Steps.
        weight_decay: AdamW's.
        clip: Highest norm of the gradient.
        dropout: Share of channels dropped behind fc6 and fc7. The paper's half is for 4096 channels; a quarter of
            them can spare less.
        ema: Decay of the running average of the weights, which is what is evaluated and shipped.
        seed: Of initial weights and batches.
    """

    width: float
    steps: int
    batch: int
    crop: tuple[int, int] = (160, 224)
    lr: float = 1e-3
    warmup: int = 150
    weight_decay: float = 1e-2
    clip: float = 1.0
    dropout: float = 0.1
    ema: float = 0.997
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width <= 0 or self.width * 64 % 1 or self.steps <= self.warmup or self.batch <= 0:
            raise InputError(
                "the training recipe makes no sense",
                got=f"width {self.width:g}, {self.steps} steps, batch {self.batch}",
                expected=f"a width in 64ths, a positive batch, and more than {self.warmup} steps",
            )

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step as a share of `lr`."""
        return warmup_cosine(step, self.steps, self.warmup)


def _pixels(seed: int) -> tuple[Pixels, Pixels]:
    scene = make_scene(seed)
    return scene.image, scene.labels


def make_scenes(seeds: range, workers: int, what: str, console: Console) -> tuple[Pixels, Pixels]:
    """Makes scenes on several processes.

    Args:
        seeds: One scene each.
        workers: Processes.
        what: Said beside the progress bar.
        console: Where it is shown.

    Returns:
        Images, uint8 [N, H, W, 3], and labels, uint8 [N, H, W].
    """
    images = np.empty((len(seeds), *DEFAULT_SIZE, 3), np.uint8)
    labels = np.empty((len(seeds), *DEFAULT_SIZE), np.uint8)
    with ProcessPoolExecutor(workers) as pool:
        scenes = pool.map(_pixels, seeds, chunksize=_CHUNK)
        for index, scene in enumerate(track(scenes, what, total=len(seeds), console=console)):
            images[index], labels[index] = scene
    return images, labels


def cached_scenes(cache: Path | None, seeds: range, workers: int, console: Console) -> tuple[Pixels, Pixels]:
    """Returns the training scenes, from the cache if it holds these very seeds, else made and put there."""
    if cache is not None and cache.is_file():
        with np.load(cache) as stored:
            if stored["seeds"].tolist() == [seeds.start, seeds.stop]:
                return stored["images"], stored["labels"]
    images, labels = make_scenes(seeds, workers, "training scenes", console)
    if cache is not None:
        np.savez(cache, images=images, labels=labels, seeds=[seeds.start, seeds.stop])
    return images, labels


def normalise(images: Pixels) -> Tensor:
    """Returns uint8 [N, H, W, 3] as the float32 [N, 3, H, W] the net takes."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().mul_(TORCHVISION.scale)
    mean, std = (torch.tensor(values)[:, None, None] for values in (TORCHVISION.mean, TORCHVISION.std))
    return x.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def batches(images: Pixels, labels: Pixels, recipe: Recipe, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields random crops, half of them mirrored, from step `start` on; a step's batch depends on its number alone."""
    height, width = recipe.crop
    for step in range(start, recipe.steps):
        rng = np.random.default_rng((recipe.seed, step))
        picks = [shuffled(step * recipe.batch + index, len(images), recipe.seed) for index in range(recipe.batch)]
        crops, truths = [], []
        for pick in picks:
            top = rng.integers(images.shape[1] - height + 1)
            left = rng.integers(images.shape[2] - width + 1)
            window = np.s_[top : top + height, left : left + width]
            flip = np.s_[:, :: -1 if rng.random() < 0.5 else 1]
            crops.append(images[pick][window][flip])
            truths.append(labels[pick][window][flip])
        yield normalise(np.stack(crops)), torch.from_numpy(np.stack(truths).astype(np.int64))


def class_weights(labels: Pixels) -> Tensor:
    """Returns what a pixel of each class counts in the loss."""
    return rarity_weights(np.bincount(labels.ravel(), minlength=len(CLASSES))[: len(CLASSES)] / labels.size)


def new_model(recipe: Recipe) -> FCN:
    """Returns a net to train from scratch."""
    torch.manual_seed(recipe.seed)
    model = FCN(stride=_STRIDE, num_classes=len(CLASSES), width=recipe.width)
    set_dropout(model, recipe.dropout)
    for _, score, _ in model.skips:
        # Zero skips are for nets that grow out of a trained coarser one; here all scores learn at once.
        nn.init.normal_(model.get_parameter(f"{score}.weight"), std=0.01)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def evaluate(model: nn.Module, images: Pixels, labels: Pixels) -> NDArray[np.int64]:
    """Returns the confusion matrix of the net over scenes, int64 [C, C]."""
    model.eval()
    matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for start in range(0, len(images), _CHUNK):
        predicted = model(normalise(images[start : start + _CHUNK])).argmax(1).numpy()
        matrix += confusion_matrix(labels[start : start + _CHUNK], predicted, len(CLASSES), IGNORE_INDEX)
    model.train()
    return matrix


def spec_of(recipe: Recipe) -> ModelSpec:
    """Returns what the checkpoint says about itself."""
    return ModelSpec(
        variant=f"fcn{_STRIDE}s",
        stride=_STRIDE,
        width=recipe.width,
        num_classes=len(CLASSES),
        classes=CLASSES,
        palette=PALETTE,
        ignore_index=IGNORE_INDEX,
        normalization=TORCHVISION,
    )


def save(model: nn.Module, recipe: Recipe, path: Path) -> None:
    """Writes the weights in half precision, with the spec in the file's metadata."""
    save_net(model, spec_of(recipe), path, torch.float16)


@dataclass
class Run:
    """Everything that changes while training, so that a killed run can go on."""

    recipe: Recipe
    model: FCN
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float = 0.0

    @classmethod
    def new(cls, recipe: Recipe) -> Run:
        """Starts at step 0."""
        model = new_model(recipe)
        optimizer = torch.optim.AdamW(adamw_groups(model.parameters(), recipe.lr, recipe.weight_decay))
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
        return cls(recipe, model, average, optimizer)

    def load(self, path: Path) -> None:
        """Takes up what `store` wrote.

        Raises:
            InputError: The file is of a run with another recipe.
        """
        state = torch.load(path, weights_only=True)
        if state["recipe"] != self._recipe:
            raise InputError(
                f"{path} is of a run with another recipe",
                got=state["recipe"],
                expected=self._recipe,
                fix="call with the same options as before, or name another --state",
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], state["best"]

    @property
    def _recipe(self) -> dict[str, object]:
        return asdict(self.recipe)

    def store(self, path: Path) -> None:
        """Writes the run's state, atomically."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimizer")}
        content = io.BytesIO()
        torch.save({**state, "recipe": self._recipe, "step": self.step, "best": self.best}, content)
        write_bytes(path, content.getvalue())

    def advance(self, images: Tensor, truths: Tensor, weights: Tensor) -> float:
        """Takes one step and returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * self.recipe.rate(self.step)
        loss = nn.functional.cross_entropy(self.model(images), truths, weights, ignore_index=IGNORE_INDEX)
        value = descend(loss, self.model, self.optimizer, self.recipe.clip)
        self.average.update_parameters(self.model)
        self.step += 1
        return value


def train(
    run: Run, training: tuple[Pixels, Pixels], unseen: tuple[Pixels, Pixels], output: Path, state: Path | None,
    every: int, console: Console,
) -> None:  # fmt: skip
    """Trains to the end of the recipe; the best net so far is at `output` from the first evaluation on."""
    recipe = run.recipe
    torch.manual_seed(recipe.seed + run.step)
    losses: list[float] = []
    weights = class_weights(training[1])
    began = time.monotonic()
    feed = batches(*training, recipe, run.step)
    for images, truths in track(feed, "training", total=recipe.steps - run.step, console=console):
        losses.append(run.advance(images, truths, weights))
        if run.step % every and run.step != recipe.steps:
            continue
        matrix = evaluate(run.average, *unseen)
        miou = float(mean_iou(matrix))
        if miou > run.best:
            run.best = miou
            save(run.average.module, recipe, output)
        if state is not None:
            run.store(state)
        console.print(
            f"step {run.step}/{recipe.steps}  loss {np.mean(losses):.4f}  mIoU {miou:.2f}  "
            f"pixel accuracy {pixel_accuracy(matrix):.2f}  best {run.best:.2f}  {time.monotonic() - began:.0f} s"
        )
        losses.clear()


def report(path: Path, scenes: tuple[Pixels, Pixels], console: Console) -> None:
    """Prints the accuracy of the checkpoint as it lies there, half precision and all."""
    matrix = evaluate(load_model(read_checkpoint(path)), *scenes)
    console.print(
        "IoU: " + "  ".join(f"{name} {iou:.1f}" for name, iou in zip(CLASSES, class_iou(matrix), strict=True))
    )
    console.print(
        f"{path.name}: mIoU {mean_iou(matrix):.2f}, pixel accuracy {pixel_accuracy(matrix):.2f} "
        f"on {len(scenes[0])} unseen scenes"
    )


@click.command()
@click.option("--output", type=_FILE, default=checkpoint_path, show_default="the packaged checkpoint")
@click.option("--width", type=float, default=0.25, show_default=True, help="Channel multiplier.")
@click.option("--steps", type=int, default=5000, show_default=True, help="Batches in all.")
@click.option("--batch", type=int, default=4, show_default=True, help="Crops in a batch.")
@click.option("--scenes", type=click.IntRange(1, len(TRAINING_SEEDS)), default=5000, show_default=True)
@click.option("--unseen", type=click.IntRange(1, len(EVALUATION_SEEDS) // 2), default=100, show_default=True)
@click.option("--every", type=click.IntRange(1), default=400, show_default=True, help="Steps between evaluations.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--cache", type=_FILE, help="Keeps the training scenes (.npz) for a next run.")
@click.option("--state", type=_FILE, help="Goes on from, and keeps, the run (.pt).")
@click.option("--evaluate-only", is_flag=True, help="Only reports on the checkpoint at --output.")
def main(
    output: Path, width: float, steps: int, batch: int, scenes: int, unseen: int, every: int, threads: int,
    cache: Path | None, state: Path | None, evaluate_only: bool,
) -> None:  # fmt: skip
    """Trains the demo net and writes it as half-precision safetensors.

    The best net is chosen on the first UNSEEN evaluation scenes; the final report is on the UNSEEN scenes after them,
    which have had no say in anything.
    """
    console = Console()
    torch.set_num_threads(threads)
    try:
        if not evaluate_only:
            check_writable(output)
            run = Run.new(Recipe(width=width, steps=steps, batch=batch))
            if state is not None and state.is_file():
                run.load(state)
                console.print(f"going on from step {run.step}")
            training = cached_scenes(cache, TRAINING_SEEDS[:scenes], threads, console)
            choosing = make_scenes(EVALUATION_SEEDS[:unseen], threads, "evaluation scenes", console)
            train(run, training, choosing, output, state, every, console)
        report(output, make_scenes(EVALUATION_SEEDS[unseen : 2 * unseen], threads, "unseen scenes", console), console)
    except FcnDeployError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
