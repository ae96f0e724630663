"""Makes the sample set of this folder: labelled scenes that no net of this package was trained or is judged on.

python calibration/recipes/make_sample.py calibration/sample
"""

from __future__ import annotations

from pathlib import Path

import click

from fcn_deploy.demo import CALIBRATION_SEEDS, DEFAULT_SIZE, write_scenes


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", type=click.IntRange(1, len(CALIBRATION_SEEDS)), default=12, show_default=True)
@click.option(
    "--size",
    type=(click.IntRange(32), click.IntRange(32)),
    default=DEFAULT_SIZE,
    show_default=True,
    help="Height and width in pixels.",
)
def main(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Writes FOLDER/images and FOLDER/labels."""
    write_scenes(folder, CALIBRATION_SEEDS[:count], size)
    click.echo(f"wrote {count} scenes to {folder / 'images'} and {folder / 'labels'}")


if __name__ == "__main__":
    main()
