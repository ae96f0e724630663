"""Tries an NVIDIA GPU: the libraries that run nets on it, or this package's own CUDA side.

    python tools/gpu_check.py -o gpu.json

runs the packaged demo net and an FCN-8s of random weights in every library that is there, compares the results with
ONNX Runtime's on the CPU, and measures the time; see `gpu_libraries`. It needs no network and no data. What a library
refuses is recorded in its own words, and the rest goes on; the file is written anew after each step, so that it holds
the findings up to a crash. A table comes to stderr. Exit code 7 where nothing ran on a GPU. `--smoke` takes PyTorch and
ONNX Runtime on the CPU instead of their GPU sides, and tiny sizes, to try the script itself.

    python tools/gpu_check.py --cuda -o cuda.json

runs the checks of `cuda_checks`: streams, memory, CUDA graphs and threads, with a stand-in for TensorRT that launches
real kernels. It takes minutes, and needs this package, cuda-core, cuda-bindings, and CUDA's NVRTC, which comes with
CUDA or as nvidia-cuda-nvrtc. Exit code 3 if a check fails. `--share 0.05` repeats less, for compute-sanitizer.
"""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

import click

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.options.types import PATH, ShapeType
from fcn_deploy.errors import DependencyError, FcnDeployError, GateError
from fcn_deploy.files import check_writable
from fcn_deploy.runtime.tensorrt.driver import find_gpus
from fcn_deploy.runtime.tensorrt.flavor import BUILDERS

_BACKENDS = ("pytorch", "onnxruntime", *(flavor.name for flavor in BUILDERS))


@click.command()
@click.option("--net", "nets", multiple=True, default=("demo", "1.0"), show_default=True, help="demo, or a width.")
@click.option("--shape", type=ShapeType(), default="1x512x512", show_default=True, help="Of the images.")
@click.option("--backend", "backends", multiple=True, type=click.Choice(_BACKENDS), help="[default: all]")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile, too.")
@click.option("--warmup", type=click.FloatRange(0), default=500, show_default=True, help="Milliseconds for each.")
@click.option("--duration", type=click.FloatRange(0), default=20, show_default=True, help="Seconds, all together.")
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True, help="Least number of rounds.")
@click.option("--smoke", is_flag=True, help="On the CPU, tiny: tries the script itself.")
@click.option("--cuda", is_flag=True, help="Check this package's CUDA side instead.")
@click.option("--share", type=click.FloatRange(0, 1), default=1, show_default=True, help="--cuda: of the repetitions.")
@click.option("--only", multiple=True, metavar="CHECK", help="--cuda: this check; repeatable.  [default: all]")
@click.option("-o", "--output", type=PATH, required=True, help="The JSON file to write.")
def main(
    nets: tuple[str, ...],
    shape: ImageShape,
    backends: tuple[str, ...],
    compiled: bool,
    warmup: float,
    duration: float,
    iterations: int,
    smoke: bool,
    cuda: bool,
    share: float,
    only: tuple[str, ...],
    output: Path,
) -> None:
    """Runs it all."""
    check_writable(output)
    if cuda:
        _check_cuda(output, share, only)
        return
    from fcn_deploy.evaluation.latency import BenchmarkConfig
    from gpu_libraries import compare

    if smoke:
        nets, shape, warmup, duration, iterations = ("demo",), ImageShape(1, 64, 96), 0, 0, 2
    config = BenchmarkConfig(warmup, duration, iterations)
    if not compare(nets, shape, backends, config, output, compiled=compiled, smoke=smoke):
        _say("nothing ran" if smoke else "nothing ran on a GPU")
        sys.exit(DependencyError.exit_code)


def _check_cuda(output: Path, share: float, only: tuple[str, ...]) -> None:
    try:
        find_gpus()
    except FcnDeployError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    from gpu_cuda import check

    if not check(output, share, only):
        sys.exit(GateError.exit_code)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    faulthandler.enable()
    main()
