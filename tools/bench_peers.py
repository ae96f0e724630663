"""Times this project beside what else runs such nets on a CPU, in one interleaved run.

    make bench
    python tools/bench_peers.py --model fcn8s.onnx --weights fcn8s_camvid.pth --calib-data DIR --images DIR \
        --peers .venv-peers/bin/python -o peers.json --plot peers.svg

Contestants: PyTorch (eager, channels_last, torch.compile), ONNX Runtime on the exported model and on what its
`quantize_static` and ModelOpt's ONNX quantiser make of it, OpenVINO (FP32, and INT8 by NNCF, with its defaults or under
control of the accuracy), MNN and ncnn (FP32), and the project's engines for ONNX Runtime and OpenVINO. ModelOpt's INT8
graph is for TensorRT; it and the project's own for TensorRT are simulated too, for their labels alone. Each is a
process of its own; those of others live in an environment of their own, for their tools ask for other versions of what
the project needs. Every round runs each once, in an order drawn anew. Two times are taken of every run: from uint8
images to labels, where a peer's images are normalised and its labels found in NumPy, and of the net alone. With
`--fidelity` every contestant also runs over all images, and its labels are compared with the exported model's and with
the ground truth. Without a model, the net is an FCN-8s of random weights on generated scenes. What a peer refuses is
recorded in its own words, and the rest goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contestants import ALL, AT_HOME, CONVERTED, ENGINES, NEEDS_PEERS, OURS, SIMULATED, STATIC
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.options.types import PATH, ShapeType
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.demo import CALIBRATION_SEEDS, EVALUATION_SEEDS, make_scene
from fcn_deploy.diagnostics.checkup import check_up
from fcn_deploy.errors import FcnDeployError
from fcn_deploy.evaluation.latency import BenchmarkConfig, Timing, ratio, time_in_turn
from fcn_deploy.files import check_writable, write_bytes, write_json
from fcn_deploy.graph.layers import list_layers, total_macs
from fcn_deploy.graph.model import exported_spec, parse
from fcn_deploy.runtime.image import normalize
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.calibrating import calibrate
from fcn_deploy.workflows.exporting import export
from fidelity import Judge, Labeller
from gpu_cases import write_random_net
from peer_process import SCRIPTS, Peer
from peer_report import BASELINE, plot_times, print_fidelity, print_times
from quantizers import quantize_static

_RANDOM_SIZE = (360, 480)


@click.command()
@click.option("--model", type=PATH, help="An exported model.  [default: an FCN-8s of random weights]")
@click.option("--weights", type=PATH, help="What it was exported from, for PyTorch.")
@click.option("--calib-data", type=PATH, help="Images to calibrate with.")
@click.option("--images", "folder", type=PATH, help="Images to time on, resized.")
@click.option("--peers", type=PATH, help="The Python of the peers' environment.  [default: none of theirs]")
@click.option("--contestant", "chosen", multiple=True, type=click.Choice(ALL), help="[default: all]")
@click.option("--model-from", help="What makes a net of your own for PyTorch: package.module:callable.")
@click.option("--fidelity", is_flag=True, help="Compare labels over all images, at their own size.")
@click.option("--labels", type=PATH, help="Ground truth of the images, for --fidelity.")
@click.option("--max-images", type=click.IntRange(1), help="How many images --fidelity takes.  [default: all]")
@click.option("--control-images", type=click.IntRange(1), help="How many NNCF's control runs on.  [default: all]")
@click.option("--shape", "shapes", type=ShapeType(), multiple=True, help="NxHxW or HxW.  [default: a grid]")
@click.option("--threads", "counts", type=click.IntRange(1), multiple=True, default=(2, 1), show_default=True)
@click.option("--rounds", type=click.IntRange(5), default=5, show_default=True, help="Least number of rounds.")
@click.option("--duration", type=click.FloatRange(0), default=90, show_default=True, help="Seconds for a shape.")
@click.option("-o", "--output", type=PATH, required=True, help="The JSON file to write.")
@click.option("--plot", type=PATH, help="A picture to draw: .svg, .png or .pdf.")
def main(
    model: Path | None,
    weights: Path | None,
    calib_data: Path | None,
    folder: Path | None,
    peers: Path | None,
    chosen: tuple[str, ...],
    model_from: str | None,
    fidelity: bool,
    labels: Path | None,
    max_images: int | None,
    control_images: int | None,
    shapes: tuple[ImageShape, ...],
    counts: tuple[int, ...],
    rounds: int,
    duration: float,
    output: Path,
    plot: Path | None,
) -> None:
    """Runs it all."""
    given = (model, weights, calib_data, folder)
    if any(given) and not all(given):
        raise click.UsageError("--model, --weights, --calib-data and --images go together")
    if fidelity != (labels is not None) or (fidelity and not any(given)):
        raise click.UsageError("--fidelity and --labels go together, with a model")
    if model_from is not None and not any(given):
        raise click.UsageError("--model-from says what makes the net of --model, and goes with it")
    check_writable(output)
    shapes = shapes or tuple(ImageShape(batch, *size) for batch in (1, 4) for size in _sizes())
    contestants = [name for name in ALL if not chosen or name in chosen]
    contestants = [name for name in contestants if peers or name not in NEEDS_PEERS]
    if BASELINE not in contestants:
        raise click.UsageError(f"everything is compared with {BASELINE}")
    judge = None
    if labels is not None:
        assert model is not None
        assert folder is not None
        judge = Judge.open(folder, labels, exported_spec(parse(model.read_bytes())), shapes, max_images)
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as work:
        bench = Bench(Path(work), peers, judge=judge, control_images=control_images or 0)
        refused = bench.prepare(model, weights, calib_data, folder, contestants, model_from)
        report: dict[str, Any] = {"format": 1, "host": check_up().to_json(), "refused": refused, "runs": []}
        report["peers"] = _versions(peers) if peers else {}
        config = BenchmarkConfig(duration=duration, iterations=rounds)
        for threads in counts:
            report.setdefault("sgemm_gflops", {})[str(threads)] = _sgemm_gflops(threads)
            for shape in shapes:
                _say(f"{shape}, {threads} threads")
                report["runs"].append(bench.measure(contestants, shape, threads, config))
                write_json(output, report)
                print_times(report["runs"][-1])
                print_fidelity(report["runs"][-1])
    if plot is not None:
        write_bytes(plot, plot_times(report["runs"][0], plot.suffix, OURS))


def _sizes() -> Sequence[tuple[int, int]]:
    return ((512, 512), (256, 256), (360, 480), (1024, 1024))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(eq=False)
class Bench:
    """Files of one net for all contestants.

    Attributes:
        work: The folder they lie in.
        peers: The Python of the peers' environment.
        macs: What the net multiplies and adds for images of a shape.
        judge: Compares labels over all images; None where only times are taken.
        control_images: On how many calibration images NNCF controls the accuracy; 0 for all.
    """

    work: Path
    peers: Path | None
    macs: Callable[[ImageShape], int | None] = lambda shape: None
    judge: Judge | None = None
    control_images: int = 0

    def prepare(
        self,
        model: Path | None,
        weights: Path | None,
        calib_data: Path | None,
        images: Path | None,
        contestants: Sequence[str],
        maker: str | None = None,
    ) -> dict[str, str]:
        """Writes what contestants open; returns what converters refuse, in their words."""
        if model is None or weights is None or calib_data is None or images is None:
            _say("no model: an FCN-8s of random weights, on generated scenes")
            model, weights, calib_data, images = self._random_net()
        data = model.read_bytes()
        (self.work / "net.onnx").write_bytes(data)
        (self.work / "control.txt").write_text(str(self.control_images))
        (self.work / "weights.txt").write_text("\n".join([str(weights.resolve()), *([maker] if maker else [])]))
        graph = parse(data)
        self.macs = lambda shape: total_macs(list_layers(graph, shape))
        normalization = exported_spec(graph).normalization
        scale, offset = normalization.affine()
        facts = {"scale": list(scale), "offset": list(offset), "color": normalization.color}
        (self.work / "normalization.json").write_text(json.dumps(facts))
        self._images = images
        calibration = ImageFolder.open(calib_data)
        refused = self._build(model, calibration, contestants)
        planes = {str(index): normalize(image[np.newaxis], normalization) for index, image in enumerate(calibration)}
        np.savez(self.work / "calibration.npz", **planes)  # type: ignore[arg-type]
        names = [name for name in CONVERTED if name in contestants]
        return refused | {name: refusal for name in names if (refusal := self._convert(name))}

    def _build(self, model: Path, calibration: ImageFolder, contestants: Sequence[str]) -> dict[str, str]:
        """Builds the project's engines, and what `quantize_static` makes; returns what cannot be built here."""
        _say("building the project's engines")
        refused: dict[str, str] = {}
        asked = {name: options for name, options in ENGINES.items() if f"ours-{name}" in contestants}
        quantized = {name for name, options in asked.items() if options.get("precision") == "int8"}
        ranges = calibrate(model, calibration) if quantized else None
        for name, options in asked.items():
            calibrated = {"ranges": ranges} if name in quantized else {}
            try:
                build_engine(model, output=self.work / f"{name}.onnx", **calibrated, **options)
            except FcnDeployError as error:
                refused[f"ours-{name}"] = str(error)
        if STATIC in contestants:
            _say("quantize_static")
            quantize_static(model, calibration, "minmax", self.work / "static.onnx", per_channel=True)
        return refused

    def measure(
        self, contestants: Sequence[str], shape: ImageShape, threads: int, config: BenchmarkConfig
    ) -> dict[str, Any]:
        """Times contestants in turn on images of one shape."""
        rows: dict[str, dict[str, Any]] = {name: {"refused": None} for name in contestants}
        batch = self.work / f"{shape}.npy"
        np.save(batch, self._batch(shape))
        opened: dict[str, Peer] = {}
        with ExitStack() as stack:
            for name in contestants:
                try:
                    peer = self._open(name, shape, threads)
                    stack.callback(peer.close)
                    peer.run(batch)  # some fail only then
                    opened[name] = peer
                except click.ClickException as error:
                    _say(f"  {name} refuses: {error.message}")
                    rows[name]["refused"] = error.message
            if BASELINE not in opened:
                raise click.ClickException(
                    f"{BASELINE}, what all are compared with, refuses: {rows[BASELINE]['refused']}"
                )
            timed = {name: _runs(peer, batch) for name, peer in opened.items() if name not in SIMULATED}
            timings = time_in_turn(timed, config)
            labels = {name: peer.labels(self.work / "labels.npy") for name, peer in opened.items()}
            judged = self._judged(opened) if self.judge is not None and self.judge.shape == shape else {}
        whole = {timing.name: timing for timing in timings}
        for name, timing in whole.items():
            alone = _alone(opened[name], timing)
            rows[name].update(
                whole=_compared(timing, whole[BASELINE]),
                net=_compared(alone, _alone(opened[BASELINE], whole[BASELINE])),
            )
        for name, found in labels.items():
            rows[name].update(alike=float((found == labels[BASELINE]).mean()), fidelity=judged.get(name))
        rounds = len(whole[BASELINE].latencies)
        return {
            "shape": str(shape), "threads": threads, "rounds": rounds, "macs": self.macs(shape), "contestants": rows
        }  # fmt: skip

    def _judged(self, opened: Mapping[str, Peer]) -> dict[str, dict[str, Any]]:
        def labeller(peer: Peer) -> Labeller:
            def labels(file: Path) -> NDArray[Any]:
                peer.run(file, timed=False)
                return peer.labels(self.work / "labels.npy")

            return labels

        assert self.judge is not None
        _say("judging over all images")
        labellers = {name: labeller(peer) for name, peer in opened.items()}
        return self.judge.judge(labellers, BASELINE, self.work / "image.npy")

    def _open(self, name: str, shape: ImageShape, threads: int) -> Peer:
        python = Path(sys.executable) if name in AT_HOME else self.peers
        assert python is not None
        if name == "ncnn-fp32" and (refusal := self._convert(name, str(shape.height), str(shape.width))):
            raise click.ClickException(refusal)
        return Peer.open(python, name, self.work, shape, threads)

    def _convert(self, name: str, *size: str) -> str | None:
        """Converts the net; returns the last line of what the converter said where it fails."""
        _say(f"converting for {name}")
        command = [str(self.peers), str(SCRIPTS / "peer_convert.py"), name, str(self.work), *size]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return (done.stdout.strip().splitlines() or ["it ended without a word"])[-1] if done.returncode else None

    def _batch(self, shape: ImageShape) -> NDArray[np.uint8]:
        folder = ImageFolder.open(self._images, max_images=shape.batch, size=(shape.height, shape.width))
        found = list(folder)
        return np.stack([found[index % len(found)] for index in range(shape.batch)])

    def _random_net(self) -> tuple[Path, Path, Path, Path]:
        weights, model = self.work / "random.safetensors", self.work / "random.onnx"
        write_random_net(1.0, weights)
        export(weights, output=model)
        folders = [self.work / "calibration", self.work / "images"]
        for folder, seeds in zip(folders, (CALIBRATION_SEEDS[:16], EVALUATION_SEEDS[:4]), strict=True):
            folder.mkdir()
            for seed in seeds:
                Image.fromarray(make_scene(seed, _RANDOM_SIZE).image).save(folder / f"{seed}.png")
        return model, weights, *folders


def _runs(peer: Peer, batch: Path) -> Callable[[], None]:
    return lambda: peer.run(batch)


def _alone(peer: Peer, timing: Timing) -> Timing:
    """The times of the net alone in the rounds that counted, which are the last."""
    return Timing(peer.name, np.array(peer.net_ms[-len(timing.latencies) :]))


def _compared(timing: Timing, baseline: Timing) -> dict[str, float]:
    over = ratio(timing, baseline)
    return {"median_ms": timing.median, "ratio": over.median, "ratio_low": over.low, "ratio_high": over.high}


def _sgemm_gflops(threads: int) -> float:
    """What PyTorch's product of large float32 matrices reaches, the best of some: what this CPU can do, in practice."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    matrix = torch.rand(2048, 2048)
    (timing,) = time_in_turn({"sgemm": lambda: matrix @ matrix}, BenchmarkConfig(duration=3))
    torch.set_num_threads(before)
    return float(2 * 2048**3 / timing.latencies.min() / 1e6)


def _versions(python: Path) -> dict[str, str]:
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=json"], text=True, stdout=subprocess.PIPE, check=True
    )
    wanted = {"openvino", "nncf", "nvidia-modelopt", "mnn", "ncnn", "pnnx"}
    return {entry["name"]: entry["version"] for entry in json.loads(listed.stdout) if entry["name"].lower() in wanted}


if __name__ == "__main__":
    main()
