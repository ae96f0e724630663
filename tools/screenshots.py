"""Takes the pictures of a report that the documentation shows: light, dark, and on a phone.

    python tools/screenshots.py demo-out/report.html -o docs/images

Needs Playwright and Chromium: `make report-screenshots` installs the first.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from PIL import Image
from playwright.sync_api import sync_playwright

from fcn_deploy.cli.options.types import FOLDER, PATH

# Name, colour scheme, width and height in pixels.
_SCREENS = (("light", "light", 1000, 1250), ("dark", "dark", 1000, 1250), ("phone", "light", 360, 900))
# Few colours are enough for text and bars, and keep the files small.
_COLORS = 128


@click.command()
@click.argument("report", type=PATH)
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder of the pictures.")
def main(report: Path, output: Path) -> None:
    """Opens REPORT in Chromium and writes report-light.png, report-dark.png and report-phone.png."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise click.UsageError("no Chromium: on Debian, apt-get install chromium")
    with sync_playwright() as driver:
        # No sandbox: as root in a container it does not start with one, and the page is one that we made.
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, scheme, width, height in _SCREENS:
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
            page = context.new_page()
            page.goto(report.resolve().as_uri())
            path = output / f"report-{name}.png"
            page.screenshot(path=path)
            Image.open(path).convert("RGB").quantize(_COLORS).save(path, optimize=True)
            click.echo(f"wrote {path}: {path.stat().st_size / 1e3:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
