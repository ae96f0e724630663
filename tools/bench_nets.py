"""Writes the table of docs/results.md that holds this project's INT8 beside that of others, on several nets.

    make bench-fidelity
    python tools/bench_nets.py --peers .venv-peers/bin/python --camvid DIR --net Fcn8s -o out/fidelity.md

The nets are those that the tests bring, on generated scenes, and an FCN-8s trained on CamVid, which is not in this
repository: its folder has `fcn8s_camvid.pth`, `camvid/calibration/images`, `camvid/evaluation/images` and
`camvid/evaluation/labels`. Each net is exported, and given to tools/bench_peers.py with `--fidelity`, which writes a
JSON file beside the table. The table is written anew after each net.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from contestants import CONTROLLED, SIMULATED, STATIC
from fcn_deploy.cli.options.types import PATH
from fcn_deploy.cli.progress import TerminalProgress
from fcn_deploy.demo import CALIBRATION_SEEDS, EVALUATION_SEEDS, write_scenes
from fcn_deploy.files import check_writable, write_bytes
from fcn_deploy.workflows.exporting import export
from peer_report import BASELINE

_ROOT = Path(__file__).parent.parent
_HARD_NETS = {"UNet": "U-Net", "FastScnn": "Fast-SCNN", "MobileDeepLab": "MobileNet-DeepLab", "EspNet": "ESPNet"}
_CALIBRATION, _EVALUATION = CALIBRATION_SEEDS[:24], EVALUATION_SEEDS[:48]
# The rows of a net: contestants of bench_peers.py, and what the table calls them.
ROWS: Mapping[str, str] = {
    STATIC: "ONNX Runtime, `quantize_static`",
    "openvino-int8": "NNCF, OpenVINO",
    CONTROLLED: "NNCF, accuracy controlled",
    "modelopt-onnxruntime": "ModelOpt, ONNX Runtime",
    "modelopt-tensorrt-simulated": "ModelOpt, TensorRT simulated",
    "ours-int8": "this project, ONNX Runtime",
    "ours-openvino-int8": "this project, OpenVINO",
    "ours-openvino-int8-bf16": "this project, OpenVINO, INT8 over BF16",
    "ours-openvino-bf16": "this project, OpenVINO, BF16",
    "ours-tensorrt-simulated": "this project, TensorRT simulated",
}


@dataclass(frozen=True)
class Net:
    """A net, its images, and how long it is measured.

    Attributes:
        name: As `--net` takes it.
        title: What the table calls it.
        weights: Its checkpoint.
        calibration: Folder of images to calibrate with.
        evaluation: Folder with `images` and `labels` to judge on.
        shapes: Of the images to judge on, and of those to time on.
        maker: What makes the net, if it is no FCN.
        options: For `export`.
        control_images: How many NNCF's control of the accuracy runs on; all if None.
    """

    name: str
    title: str
    weights: Path
    calibration: Path
    evaluation: Path
    shapes: tuple[str, str]
    maker: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    control_images: int | None = None

    @property
    def missing(self) -> Path | None:
        """What of its files is not here."""
        needed = (self.weights, self.calibration, self.evaluation)
        return next((path for path in needed if not path.exists()), None)

    def arguments(self, model: Path) -> list[str]:
        """Returns the options of bench_peers.py."""
        images, labels = self.evaluation / "images", self.evaluation / "labels"
        shapes = [word for shape in dict.fromkeys(self.shapes) for word in ("--shape", shape)]
        given = ["--model", model, "--weights", self.weights, "--calib-data", self.calibration, "--images", images]
        given += ["--fidelity", "--labels", labels, *shapes]
        given += ["--model-from", self.maker] if self.maker else []
        given += ["--control-images", self.control_images] if self.control_images else []
        return [str(word) for word in given]


def hard_nets(scenes: Path) -> list[Net]:
    """Returns the nets that the tests bring.

    Args:
        scenes: Folder with the generated scenes.
    """
    return [
        Net(
            name,
            title,
            weights=_ROOT / "tests/support/weights" / f"{name}.safetensors",
            calibration=scenes / "calibration" / "images",
            evaluation=scenes / "evaluation",
            shapes=("192x256", "512x512"),
            maker=f"tests.support.hard_nets:{name}",
        )
        for name, title in _HARD_NETS.items()
    ]


def camvid_fcn(folder: Path) -> Net:
    """Returns the FCN-8s that was trained on CamVid.

    Args:
        folder: With its checkpoint, and its images.
    """
    mean = (122.67892, 116.66877, 104.00699)
    return Net(
        "Fcn8s",
        "FCN-8s",
        weights=folder / "fcn8s_camvid.pth",
        calibration=folder / "camvid/calibration/images",
        evaluation=folder / "camvid/evaluation",
        shapes=("360x480", "360x480"),
        options={"mean": mean, "std": (1.0, 1.0, 1.0), "scale": 1.0, "ignore_index": 11},
        # Of 34, the control of accuracy tries each of 25 layers on all of them, which takes very long.
        control_images=8,
    )


@click.command()
@click.option("--net", "names", multiple=True, type=click.Choice(["Fcn8s", *_HARD_NETS]), help="[default: all]")
@click.option("--camvid", type=PATH, help="Folder of the FCN-8s; it is left out if None, or if the folder lacks it.")
@click.option("--peers", type=PATH, help="The Python of the peers' environment.  [default: none of theirs]")
@click.option("--max-images", type=click.IntRange(1), help="On how many images to judge.  [default: all]")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(5), default=15, show_default=True, help="Least number of rounds.")
@click.option("--duration", type=click.FloatRange(0), default=10, show_default=True, help="Seconds for a shape.")
@click.option("-o", "--output", type=PATH, required=True, help="The Markdown file to write.")
def main(
    names: tuple[str, ...],
    camvid: Path | None,
    peers: Path | None,
    max_images: int | None,
    threads: int,
    rounds: int,
    duration: float,
    output: Path,
) -> None:
    """Runs it all."""
    check_writable(output)
    scenes = output.parent / "judged"
    nets = [camvid_fcn(camvid)] if camvid is not None else []
    nets += hard_nets(scenes)
    chosen = [net for net in nets if not names or net.name in names]
    if camvid is None and (not names or "Fcn8s" in names):
        click.echo("FCN-8s is left out: --camvid does not say where it is", err=True)
    if any(net.maker for net in chosen):
        _write_scenes(scenes)
    lines: list[str] = []
    for net in chosen:
        if net.missing is not None:
            click.echo(f"{net.title} is left out: there is no {net.missing}", err=True)
            continue
        model, found = output.parent / f"{net.name}.onnx", output.parent / f"{net.name}.json"
        with TerminalProgress() as progress:
            export(net.weights, model=net.maker, output=model, progress=progress, **net.options)
        contestants = [word for name in (BASELINE, *ROWS) for word in ("--contestant", name)]
        measure = ["--threads", threads, "--rounds", rounds, "--duration", duration, "-o", found]
        measure += ["--peers", peers] if peers is not None else []
        measure += ["--max-images", max_images] if max_images is not None else []
        given = [*net.arguments(model), *contestants, *map(str, measure)]
        subprocess.run([sys.executable, str(_ROOT / "tools/bench_peers.py"), *given], check=True)
        lines += table_rows(net.title, json.loads(found.read_text())["runs"])
        write_bytes(output, "".join(f"{line}\n" for line in (*_HEAD, *lines)).encode())
    if not lines:
        raise click.ClickException("no net was measured")
    click.echo(output.read_text())


_HEAD = ("| net | quantised by, runs in | agreement | mIoU drop | time |", "|---|---|---|---|---|")


def _write_scenes(folder: Path) -> None:
    for name, seeds in (("calibration", _CALIBRATION), ("evaluation", _EVALUATION)):
        if not (folder / name / "classes.csv").exists():
            write_scenes(folder / name, seeds)


def table_rows(title: str, runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields the rows of a net.

    Args:
        title: What the table calls it.
        runs: Of bench_peers.py: labels are judged in the first, and times are those of the last.
    """
    judged, timed = runs[0]["contestants"], runs[-1]["contestants"]
    for name, called in ROWS.items():
        if name not in judged:
            continue
        cells = _cells(name, judged[name], timed[name])
        yield f"| {title} | {called} | {' | '.join(cells)} |"
        title = ""


def _cells(name: str, judged: Mapping[str, Any], timed: Mapping[str, Any]) -> tuple[str, str, str]:
    if judged["refused"]:
        return f"not measured: {judged['refused']}", "", ""
    agreement, least, most = (100 * share for share in judged["fidelity"]["agreement"])
    drop, low, high = judged["fidelity"]["drop"]
    whole = timed.get("whole")
    return (
        f"{agreement:.2f}% ({least:.2f} to {most:.2f})",
        f"{drop:.2f} ({low:.2f} to {high:.2f})",
        "" if name in SIMULATED or whole is None
        else f"{whole['ratio']:.2f} ({whole['ratio_low']:.2f}-{whole['ratio_high']:.2f})",
    )  # fmt: skip


if __name__ == "__main__":
    main()
