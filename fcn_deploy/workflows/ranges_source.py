"""Where the ranges of an INT8 or FP8 build come from: images to calibrate on, or an earlier calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.engines.config import QUANTIZED, BuildConfig, RequestedPrecision
from fcn_deploy.engines.trial import ORDINARY
from fcn_deploy.errors import UsageError
from fcn_deploy.files import StrPath
from fcn_deploy.progress import Progress
from fcn_deploy.workflows.calibrating import calibrate, load_ranges
from fcn_deploy.workflows.decisions import SearchOptions
from fcn_deploy.workflows.parameters import Size, image_folder

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel


@dataclass(frozen=True)
class RangesSource:
    """What the user asked of the ranges of a build.

    Attributes:
        precision: Of the engine.
        calib_data: Images to calibrate on, or None.
        ranges: What `calibrate` found, or None.
        method: How ranges are chosen, or None.
        size: [height, width] to resize the images to, or None.
        max_images: At most so many of them, or None.
        recursive: Whether sub-folders are searched too.

    Raises:
        UsageError: They do not go together, or with the precision.
    """

    precision: RequestedPrecision
    calib_data: StrPath | ImageFolder | None
    ranges: StrPath | Ranges | None
    method: str | None
    size: Size | None
    max_images: int | None
    recursive: bool

    def __post_init__(self) -> None:
        calibrating = self.calib_data or self.method or self.size or self.max_images
        if self.precision not in QUANTIZED and calibrating:
            fix = 'add `precision="int8"`, or leave it out'
            raise UsageError("calibration is for INT8 and FP8", got=f'`precision="{self.precision}"`', fix=fix)
        if self.precision in ("fp32", "bf16") and self.ranges:
            fix = 'add `precision="int8"`, `precision="fp8"` or `precision="fp16"`, or leave them out'
            raise UsageError("ranges are for INT8, FP8 and FP16", got=f'`precision="{self.precision}"`', fix=fix)
        if self.ranges and (self.size or self.max_images):
            got = "`calib_size` or `max_images` with `ranges`"
            raise UsageError("a ranges file is used as it is", got=got, fix="leave them out")

    def opened(self) -> RangesSource:
        """Returns the same with the folder and the ranges file read.

        Raises:
            InputError: One of them cannot be, or the folder has no images.
            UsageError: There are both.
        """
        if self.calib_data is not None and self.ranges is not None:
            self.require_one()
        folder = self.calib_data
        if folder is not None:
            folder = image_folder(folder, max_images=self.max_images, size=self.size, recursive=self.recursive)
        ranges = self.ranges if isinstance(self.ranges, Ranges | None) else load_ranges(self.ranges)
        return replace(self, calib_data=folder, ranges=ranges)

    def require_one(self) -> None:
        """Checks that an INT8 or FP8 build of a float model has ranges, and from one source."""
        if (self.calib_data is None) == (self.ranges is None):
            raise UsageError(
                f"{self.precision.upper()} needs ranges",
                got="both" if self.ranges else "neither",
                expected="`calib_data` or `ranges`",
            )

    def refuse_for_prequantized(
        self, config: BuildConfig, search: SearchOptions, twin: bool, tune: str | Size | None
    ) -> None:
        """Refuses what needs ranges for a prequantized model, which brings its own scales, and an FP16 engine of it."""
        if self.precision != "int8":
            return  # the builder says so
        options = {
            "calib_data": self.calib_data,
            "ranges": self.ranges,
            "calib_method": self.method,
            "calib_size": self.size,
            "max_images": self.max_images,
            "bias_correction=False": None if config.bias_correction else False,
            "weight_rounding": config.weight_rounding,
            "tune": tune,
            "accuracy_budget": search.budget,
            "precision_map": search.precision_map,
            "data": search.data,
        }
        asked = [f"`{name}`" for name, value in options.items() if value is not None]
        if asked:
            raise UsageError(
                "the model holds Q/DQ and brings its own scales",
                got=", ".join(asked),
                fix="leave it out, or quantise the float model it was made from",
            )
        if twin:
            fix = 'build the float model with `precision="fp16"`'
            raise UsageError("a prequantized model cannot be built in FP16", got="`twin`", fix=fix)

    def get(
        self, model: ExportedModel, search: SearchOptions, *, threads: int | None, progress: Progress
    ) -> tuple[Ranges | None, ImageFolder | None]:
        """Returns the ranges, and the calibration images that were held out for decisions."""
        if self.calib_data is None:
            assert isinstance(self.ranges, Ranges | None)  # `opened` has read it
            return self.ranges, None
        assert isinstance(self.calib_data, ImageFolder)
        images = self.calib_data
        held_out = None
        if search.decides and search.data is None:
            images, held_out = images.every_fifth()
        return calibrate(model, images, threads=threads, progress=progress), held_out

    def image_shape(self) -> ImageShape:
        """Returns the shape of a real image: of the first to calibrate on, if there are any."""
        if self.calib_data is None:
            return ORDINARY
        images = image_folder(self.calib_data, max_images=self.max_images, size=self.size, recursive=self.recursive)
        height, width = next(iter(images)).shape[:2]
        return ImageShape(1, height, width)
