"""Option types and groups of options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.normalization import Triple
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import FcnDeployError, UsageError

if TYPE_CHECKING:
    from fcn_deploy.engines.tensorrt.config import TensorRTConfig
    from fcn_deploy.evaluation.gates import AskedGate
    from fcn_deploy.models.spec_options import SpecOptions
    from fcn_deploy.workflows.plan import PlanOptions

Function = TypeVar("Function", bound=Callable[..., Any])

# Whether a path exists is for the library to say, which names the file, the reason and the exit code.
PATH = click.Path(path_type=Path)


class ShapeType(click.ParamType[ImageShape]):
    """`NxHxW` or `HxW`."""

    name = "NxHxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ImageShape:
        """Parses a shape."""
        if isinstance(value, ImageShape):
            return value
        try:
            return ImageShape.parse(value)
        except FcnDeployError as error:
            self.fail(str(error), param, ctx)


class SizeType(click.ParamType[tuple[int, int]]):
    """`HxW`."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parses a size."""
        if isinstance(value, tuple):
            return value
        if value.count("x") != 1:
            self.fail(f"bad size: got {value!r}; expected HxW, such as 360x480", param, ctx)
        shape: ImageShape = ShapeType().convert(value, param, ctx)
        return shape.height, shape.width


class TripleType(click.ParamType[Triple]):
    """`a,b,c`."""

    name = "a,b,c"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Triple:
        """Parses three numbers."""
        if isinstance(value, tuple):
            return value
        try:
            first, second, third = (float(number) for number in value.split(","))
        except ValueError:
            self.fail(f"got {value!r}; expected three numbers, such as 0.485,0.456,0.406", param, ctx)
        return first, second, third


class NumbersType(click.ParamType[tuple[float, ...]]):
    """`a,b,...`."""

    name = "a,b,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Parses numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(number) for number in value.split(","))
        except ValueError:
            self.fail(f"got {value!r}; expected numbers, such as 90,95,99", param, ctx)


class GateType(click.ParamType["AskedGate"]):
    """`agreement>=98%`, or `fp32:error<=1e-3` for one precision."""

    name = "gate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AskedGate:
        """Parses a gate."""
        from fcn_deploy.evaluation.gates import AskedGate

        if isinstance(value, AskedGate):
            return value
        try:
            return AskedGate.parse(value)
        except FcnDeployError as error:
            self.fail(str(error), param, ctx)


def _stack(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
threads_option = click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: the library's]")
output_option = click.option("-o", "--output", type=PATH, required=True, help="What to write.")

model_options = _stack(
    click.option(
        "--model",
        metavar="MODULE:CALLABLE",
        help="What makes a net of your own: package.module:callable, without arguments.  [default: the published FCNs]",
    ),
    click.option("--size-divisor", type=click.IntRange(2, 4096), help="That net works at multiples of this size only."),
    click.option(
        "--pad-mode",
        type=click.Choice(["edge", "zero", "reflect"]),
        help="How images become such multiples, at the bottom and the right.  [default: edge]",
    ),
)

gpu_options = _stack(
    click.option(
        "--provider", type=click.Choice(["cpu", "cuda"]), help="What ONNX Runtime runs on; never both.  [default: cpu]"
    ),
    click.option(
        "--device", type=click.IntRange(0), help="Index of the GPU, for plans and --provider cuda.  [default: 0]"
    ),
    click.option(
        "--allow-host-code", is_flag=True, help="Run the code that plans built with --version-compatible bring."
    ),
)

spec_options = _stack(
    click.option("--num-classes", type=click.IntRange(1), help="Checked against the checkpoint."),
    click.option(
        "--class-names", type=PATH, metavar="FILE", help="One class a line: name, or name,red,green,blue (CSV)."
    ),
    click.option("--ignore-index", type=int, help="The label that means 'not labelled'.  [default: 255]"),
    click.option("--mean", type=TripleType(), help="Mean per channel, after --scale, in the net's channel order."),
    click.option("--std", type=TripleType(), help="Standard deviation per channel, after --scale."),
    click.option("--scale", type=float, help="Factor for pixels 0..255, such as 0.00392157 or 1."),
    click.option("--at-once", is_flag=True, help="The skips are scaled by 0.01 and 0.0001, as in FCN-8s at once."),
    click.option(
        "--input-padding",
        type=click.Choice(["0", "100"]),
        help="0: a net of pytorch-fcn's layout without the paper's padding of 100.  [default: the layout's]",
    ),
    click.option(
        "--color",
        type=click.Choice(["rgb", "bgr"]),
        help="The net's channel order.  [default: the layout's, else rgb]",
    ),
)

method_option = click.option(
    "--calib-method",
    type=click.Choice(["minmax", "percentile", "entropy", "mse", "auto"]),
    help="How ranges are chosen; auto tries all on images that were not observed.  [default: mse]",
)

calibration_options = _stack(
    click.option("--calib-size", type=SizeType(), help="Resize calibration images.  [default: as they are]"),
    click.option("--max-images", type=click.IntRange(1), help="At most so many, evenly spread over the folder."),
)

plan_options = _stack(
    click.option(
        "--accuracy-budget",
        metavar="CRITERION",
        help='"agreement>=99%" or "miou_drop<=0.3": give layers back to float until it is kept.',
    ),
    click.option(
        "--precision-map", type=PATH, metavar="FILE", help="The sidecar of an engine whose INT8 layers to take over."
    ),
    click.option(
        "--data",
        type=PATH,
        metavar="DIR",
        help="Images for a budget and for --calib-method auto.  [default: every fifth of --calib-data, held out]",
    ),
    click.option("--labels", type=PATH, metavar="DIR", help="Their ground truth, for a budget of mIoU."),
    click.option("--ignore-index", type=int, help="The label that means 'not labelled'.  [default: the net's]"),
)

tensorrt_options = _stack(
    click.option(
        "--min-shape",
        type=ShapeType(),
        multiple=True,
        help="Smallest images a TensorRT engine takes; the n-th of it, --opt-shape and --max-shape are a profile.  "
        "[default: 1x32x32]",
    ),
    click.option(
        "--opt-shape",
        type=ShapeType(),
        multiple=True,
        help="Images it is tuned for; without the other two those it takes.  [default: 1x512x512]",
    ),
    click.option(
        "--max-shape", type=ShapeType(), multiple=True, help="Largest images it takes.  [default: 4x1024x1024]"
    ),
    click.option(
        "--base",
        type=click.Choice(["fp16", "fp32"]),
        default="fp16",
        show_default=True,
        help="What TensorRT runs in where INT8 does not.",
    ),
    click.option(
        "--workspace", type=click.IntRange(1, 2**24), metavar="MIB", help="GPU memory a layer may use.  [default: all]"
    ),
    click.option(
        "--builder-optimization-level",
        type=click.IntRange(0, 5),
        help="0 builds fastest, 5 searches longest.  [default: 3]",
    ),
    click.option("--timing-cache", type=PATH, metavar="FILE", help="Read if it is there, written after the build."),
    click.option("--hardware-compatibility", is_flag=True, help="For GPUs of compute capability 8.0 and newer."),
    click.option("--version-compatible", is_flag=True, help="For later versions and the lean runtime."),
    click.option(
        "--compute-capability",
        "compute_capabilities",
        multiple=True,
        metavar="X.Y",
        help="A GPU architecture to build for, such as 8.6; repeatable.  [default: 8.0 and newer]",
    ),
)

benchmark_options = _stack(
    click.option("--warmup", type=click.FloatRange(0), default=200, show_default=True, help="Milliseconds for each."),
    click.option("--duration", type=click.FloatRange(0), default=3, show_default=True, help="Seconds, all together."),
    click.option("--iterations", type=click.IntRange(1), default=10, show_default=True, help="Least number of rounds."),
    click.option("--percentile", type=NumbersType(), default="90,95,99", show_default=True, help="Of latency."),
)


def model_from(options: dict[str, Any]) -> dict[str, Any]:
    """Takes the values of `model_options` out of a command's keyword arguments: `model` and `padding`."""
    model, divisor, mode = (options.pop(name) for name in ("model", "size_divisor", "pad_mode"))
    if mode is not None and divisor is None:
        raise UsageError("a way to pad without how far", got="--pad-mode", expected="--size-divisor with it")
    return {"model": model, "padding": Padding(divisor, mode or "edge") if divisor else None}


def gpu_from(options: dict[str, Any]) -> dict[str, Any]:
    """Takes the values of `gpu_options` out of a command's keyword arguments."""
    return {name: options.pop(name) for name in ("provider", "device", "allow_host_code")}


def spec_from(options: dict[str, Any]) -> SpecOptions:
    """Takes the values of `spec_options` and `model_options` out of a command's keyword arguments."""
    from fcn_deploy.models.spec_options import SpecOptions

    color, input_padding = options.pop("color"), options.pop("input_padding")
    names = ("num_classes", "class_names", "ignore_index", "mean", "std", "scale", "at_once")
    return SpecOptions(
        color=color.upper() if color else None,
        input_padding=int(input_padding) if input_padding else None,
        **model_from(options),
        **{name: options.pop(name) for name in names},
    )


def plan_from(options: dict[str, Any], method: str | None) -> PlanOptions:
    """Takes the values of `plan_options` out of a command's keyword arguments."""
    from fcn_deploy.evaluation.criteria import Criterion
    from fcn_deploy.mixed_precision.method_search import AUTO
    from fcn_deploy.workflows.plan import PlanOptions

    budget = options.pop("accuracy_budget")
    names = ("precision_map", "data", "labels", "ignore_index")
    return PlanOptions(
        auto=method == AUTO,
        budget=None if budget is None else Criterion.parse(budget),
        **{name: options.pop(name) for name in names},
    )


def tensorrt_from(options: dict[str, Any]) -> TensorRTConfig:
    """Takes the values of `tensorrt_options` out of a command's keyword arguments."""
    from fcn_deploy.engines.tensorrt.config import TensorRTConfig
    from fcn_deploy.engines.tensorrt.profiles import pair_shapes

    profiles = pair_shapes(*(options.pop(name) for name in ("min_shape", "opt_shape", "max_shape")))
    names = (
        *("base", "workspace", "builder_optimization_level", "timing_cache"),
        *("hardware_compatibility", "version_compatible", "compute_capabilities"),
    )
    return TensorRTConfig(profiles, **{name: options.pop(name) for name in names})
