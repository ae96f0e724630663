"""`fcn-deploy calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from fcn_deploy.cli.console import TerminalProgress, print_json
from fcn_deploy.cli.options import PATH, calibration_options, json_option, output_option, threads_option


@click.command("calibrate", short_help="Observe what tensors hold.")
@click.argument("model", type=PATH)
@click.option("--calib-data", type=PATH, metavar="DIR", help="Folder of images like those the net will see.")
@calibration_options
@click.option("--random-calibration", is_flag=True, help="Noise instead of images, for timing. Needs --calib-size.")
@threads_option
@output_option
@json_option
def command(
    model: Path,
    calib_data: Path | None,
    calib_size: tuple[int, int] | None,
    max_images: int | None,
    random_calibration: bool,
    threads: int | None,
    output: Path,
    as_json: bool,
) -> None:
    """Run an exported MODEL over images and write what its tensors hold.

    The ranges file keeps histograms, so calibration methods can be tried later without the images.
    """
    from fcn_deploy.data.folders import ImageFolder
    from fcn_deploy.errors import UsageError
    from fcn_deploy.files import check_writable
    from fcn_deploy.workflows import steps

    steps.check_distinct(output, model)
    steps.check_suffix(output, ".json")
    check_writable(output)
    progress = TerminalProgress()
    if random_calibration == (calib_data is not None):
        raise UsageError("calibrate needs images", expected="--calib-data DIR, or --random-calibration, not both")
    if calib_data is None:
        if calib_size is None:
            raise UsageError("random calibration needs a size", expected="--calib-size HxW")
        ranges = steps.calibrate_randomly(model, calib_size, max_images, threads=threads, progress=progress)
    else:
        images = ImageFolder.open(calib_data, max_images=max_images, size=calib_size)
        ranges = steps.calibrate(model, images, threads=threads, progress=progress)
    ranges.save(output)
    if as_json:
        data = ranges.to_json()
        print_json({"file": str(output), "data": data["data"], "tensors": len(ranges.histograms)})
    else:
        click.echo(f"wrote {output}: {len(ranges.histograms)} tensors over {ranges.data.count} images")
