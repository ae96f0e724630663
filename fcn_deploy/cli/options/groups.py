"""Groups of options that several commands share. Each option has the name of its parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from fcn_deploy.cli.options.types import (
    FOLDER,
    PATH,
    DivisorType,
    GateType,
    IndicesType,
    NameType,
    NumbersType,
    ShapeType,
    SizeType,
    TripleType,
)

Function = TypeVar("Function", bound=Callable[..., Any])


def stack(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Returns a decorator that adds several options, in the order in which help lists them."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


gate_option = click.option(
    "--gate",
    type=GateType(),
    multiple=True,
    metavar="[PRECISION:]GATE",
    help="What an engine must keep, such as agreement>=98% or fp32:error<=1e-3, instead of the default gate of its "
    "precision; repeatable. Without a precision it is for the last of FP32, BF16 and INT8 that is built.",
)
io_option = click.option(
    "--io",
    type=click.Choice(["image", "tensor"]),
    default="image",
    show_default=True,
    help="image: uint8 images in, labels out. tensor: float image in, logits out.",
)
target_cpu_option = click.option(
    "--target-cpu",
    type=click.Choice(["generic", "vnni", "native"]),
    help="Where the engine will run. generic is right everywhere; vnni keeps all 8 bits of the weights, right with "
    "VNNI and on 64-bit Arm.  [default: generic; vnni for INT8 on openvino]",
)
variant_option = click.option(
    "--variant", type=click.Choice(["fcn32s", "fcn16s", "fcn8s"]), help="What the checkpoint must be."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
threads_option = click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: the library's]")
output_option = click.option("-o", "--output", type=PATH, required=True, help="What to write.")

padding_options = stack(
    click.option(
        "--size-divisor",
        type=DivisorType(),
        help="The net works at multiples of this size only; auto finds out, and pads only if it must.",
    ),
    click.option(
        "--pad-mode",
        type=click.Choice(["edge", "zero", "reflect"]),
        help="How images are padded to such multiples, at the bottom and the right.  [default: edge]",
    ),
)

model_options = stack(
    click.option(
        "--model",
        metavar="MODULE:CALLABLE",
        help="What makes a custom net: package.module:callable, called without arguments.  [default: the published "
        "FCNs]",
    ),
    padding_options,
    click.option(
        "--logits",
        metavar="NAME|INDEX",
        help="Which of the custom net's outputs are the logits, such as 0 or aux.out.  [default: the only one, or the "
        "one under out or logits]",
    ),
    click.option(
        "--resize-logits",
        type=click.Choice(["bilinear", "nearest"]),
        help="Resize the custom net's logits to the size of the image, in the graph.",
    ),
)

gpu_options = stack(
    click.option(
        "--provider", type=click.Choice(["cpu", "cuda"]), help="What ONNX Runtime runs on; never both.  [default: cpu]"
    ),
    click.option(
        "--device", type=click.IntRange(0), help="Index of the GPU, for plans and --provider cuda.  [default: 0]"
    ),
    click.option(
        "--device-name", metavar="NAME", help="What OpenVINO runs on: CPU, GPU or NPU; never another.  [default: CPU]"
    ),
    click.option(
        "--fast-math",
        is_flag=True,
        help="Let ONNX Runtime multiply matrices of FP32 in BF16, on a 64-bit Arm CPU that has it.",
    ),
    click.option(
        "--allow-host-code", is_flag=True, help="Run the code that plans built with --version-compatible bring."
    ),
    click.option(
        "--contexts", type=click.IntRange(1), help="How many calls on a plan run at the same time.  [default: 8]"
    ),
    click.option(
        "--graphs", type=click.IntRange(0), help="CUDA graphs that each of them keeps; 0 for none.  [default: 4]"
    ),
    click.option(
        "--specialization",
        type=click.Choice(["lazy", "eager", "none"]),
        help="When TensorRT-RTX compiles kernels for a shape: in the background, before its first run, or never.  "
        "[default: eager for plans of fixed shapes, else lazy]",
    ),
)

weights_options = stack(
    click.option(
        "--weights-key", metavar="KEY", help="The entry of the checkpoint that holds the weights, such as model_ema."
    ),
    click.option(
        "--weights-prefix",
        metavar="PREFIX",
        help="Take only the tensors under this prefix, such as model., without it.",
    ),
    click.option(
        "--weights-ignore",
        metavar="GLOB",
        multiple=True,
        help="Leave out the checkpoint's entries that match, such as 'aux_classifier.*'; repeatable.",
    ),
)

ignore_index_option = click.option(
    "--ignore-index", type=int, help="The label that means 'not labelled'.  [default: 255]"
)
ignore_indices_option = click.option(
    "--ignore-index",
    type=IndicesType(),
    help="Labels that do not count; the first is the one that the model keeps.  [default: 255]",
)

class_options = stack(
    click.option("--num-classes", type=click.IntRange(1), help="Checked against the net."),
    click.option(
        "--class-names", type=PATH, metavar="FILE", help="One class a line: name, or name,red,green,blue (CSV)."
    ),
)

normalization_options = stack(
    click.option(
        "--normalization",
        type=click.Choice(["imagenet", "caffe", "zero-one", "minus-one-one"]),
        help="How images were normalised in training, instead of --mean, --std, --scale and --color; caffe: BGR "
        "0..255 minus the mean.",
    ),
    click.option("--mean", type=TripleType(), help="Mean per channel, after --scale, in the net's channel order."),
    click.option("--std", type=TripleType(), help="Standard deviation per channel, after --scale."),
    click.option("--scale", type=float, help="Factor for pixels 0..255, such as 0.00392157 or 1."),
    click.option(
        "--color",
        type=click.Choice(["rgb", "bgr"]),
        help="The net's channel order.  [default: that of a checkpoint's layout, else rgb]",
    ),
)

threshold_option = click.option(
    "--threshold",
    type=float,
    help="Of a binary net, which has one output channel: label 1 above it.  [default: 0, or 0.5 after a sigmoid]",
)

spec_options = stack(
    class_options,
    normalization_options,
    click.option(
        "--at-once", is_flag=True, help="The skips are scaled by 0.01 and 0.0001, as in FCN-8s trained at once."
    ),
    click.option(
        "--input-padding",
        type=click.Choice([0, 100]),
        help="0: a net of pytorch-fcn's layout without the paper's padding of 100.  [default: the layout's]",
    ),
    threshold_option,
)

method_option = click.option(
    "--calib-method",
    type=click.Choice(["minmax", "percentile", "entropy", "mse", "auto"]),
    help="How ranges are chosen; auto tries all on images that were not observed.  [default: mse; minmax for --fp8]",
)

recursive_option = click.option("--recursive", is_flag=True, help="Search the sub-folders of the folders too.")

calibration_options = stack(
    click.option("--calib-size", type=SizeType(), help="Resize calibration images.  [default: as they are]"),
    click.option("--max-images", type=click.IntRange(1), help="At most so many, evenly spread over the folder."),
    recursive_option,
)

_labels_options = (
    click.option(
        "--label-map",
        type=NameType("cityscapes-trainid", "ade20k"),
        metavar="MAP",
        help="What values of the ground truth mean, if they are not the net's labels: 255=1,7=ignore (numbers or names "
        "of classes), cityscapes-trainid, ade20k, or a file with such a pair a line.",
    ),
    click.option(
        "--label-suffix",
        metavar="TEXT",
        help="What the names of labels have after those of the images, such as _gtFine_labelTrainIds.",
    ),
)

labels_options = stack(*_labels_options)

search_options = stack(
    click.option(
        "--accuracy-budget",
        metavar="CRITERION",
        help='"agreement>=99%" or "miou_drop<=0.3": make layers float until it is kept.',
    ),
    click.option(
        "--precision-map", type=PATH, metavar="FILE", help="The sidecar of an engine with the same INT8 layers."
    ),
    click.option(
        "--data",
        type=FOLDER,
        metavar="DIR",
        help="Images for a budget and for --calib-method auto.  [default: every fifth of --calib-data, held out]",
    ),
    click.option("--labels", type=FOLDER, metavar="DIR", help="Their ground truth, for a budget of mIoU."),
    click.option("--ignore-index", type=IndicesType(), help="Labels that do not count.  [default: the net's]"),
    *_labels_options,
)


def profile_options(least: str, tuned: str, largest: str) -> Callable[[Function], Function]:
    """Returns the options that make profiles; the arguments say what their defaults are."""
    return stack(
        click.option(
            "--min-shape",
            type=ShapeType(),
            multiple=True,
            help="Smallest images a TensorRT engine takes; the n-th --min-shape, --opt-shape and --max-shape make a "
            f"profile.  [default: {least}]",
        ),
        click.option(
            "--opt-shape",
            type=ShapeType(),
            multiple=True,
            help=f"Images it is tuned for; without the other two also the only ones it takes.  [default: {tuned}]",
        ),
        click.option(
            "--max-shape", type=ShapeType(), multiple=True, help=f"Largest images it takes.  [default: {largest}]"
        ),
    )


tensorrt_options = stack(
    profile_options("1x32x32", "1x512x512", "4x1024x1024"),
    click.option(
        "--base",
        type=click.Choice(["fp16", "fp32", "bf16"]),
        help="Precision of what is not quantised in an INT8 or FP8 engine: any on TensorRT, fp32 or bf16 on openvino.  "
        "[default: fp16 on TensorRT, fp32 on openvino]",
    ),
    click.option("--tf32", is_flag=True, help="What runs in FP32 may multiply in TF32, of 10 bits."),
    click.option(
        "--workspace", type=click.IntRange(1, 2**24), metavar="MIB", help="GPU memory a layer may use.  [default: all]"
    ),
    click.option(
        "--builder-optimization-level",
        type=click.IntRange(0, 5),
        help="0 builds fastest, 5 searches longest.  [default: 3]",
    ),
    click.option("--timing-cache", type=PATH, metavar="FILE", help="Read if it exists, written after the build."),
    click.option(
        "--device", type=click.IntRange(0), help="tensorrt: index of the GPU to build on and for.  [default: 0]"
    ),
    click.option("--hardware-compatibility", is_flag=True, help="For GPUs of compute capability 8.0 and newer."),
    click.option("--version-compatible", is_flag=True, help="For later versions and the lean runtime."),
    click.option(
        "--compute-capability",
        multiple=True,
        metavar="X.Y",
        help="A GPU architecture to build for, such as 8.6; repeatable.  [default: 8.0 and newer]",
    ),
)

benchmark_options = stack(
    click.option(
        "--warmup",
        type=click.FloatRange(0),
        default=200,
        show_default=True,
        help="Milliseconds for each engine, before anything counts.",
    ),
    click.option("--duration", type=click.FloatRange(0), default=3, show_default=True, help="Seconds, all together."),
    click.option("--iterations", type=click.IntRange(1), default=10, show_default=True, help="Least number of rounds."),
    click.option(
        "--percentile", type=NumbersType(), default="90,95,99", show_default=True, help="Percentiles of latency."
    ),
)
