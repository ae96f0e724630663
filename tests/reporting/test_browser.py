"""The report in a browser: `make report-check` installs Chromium's driver and axe-core, and runs this."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.workflows.reporting import report
from tests.support.deployments import CLASSES, missed, spec, summary, write_deployment

HOSTILE = '"><img src=x onerror=alert(1)></style></title><script>alert(2)</script>\u202e' + "x" * 5000
# Light on a desk, dark on a desk, and on a phone.
SCREENS = [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)]


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: `make report-check` installs it")
    program = chromium()
    if program is None:
        pytest.skip("no Chromium: on Debian, apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # No sandbox: as root in a container it does not start with one, and the pages are those of this test.
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The code of axe-core, which finds what keeps people from reading a page."""
    file = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
    if not file.is_file():
        pytest.skip("no axe-core: `make report-check` installs it")
    return file.read_text()


def hostile():
    found = summary(warnings=(HOSTILE,), variant=HOSTILE, ship=Recommendation(None, HOSTILE))
    engines = tuple(replace(each, file=HOSTILE, layers={HOSTILE: HOSTILE}) for each in found.engines)
    return replace(found, engines=engines, origin=replace(found.origin, spec=spec((HOSTILE, *CLASSES[1:]))))


DEPLOYMENTS = {"passed": summary, "missed": missed, "hostile": hostile}


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def page_file(request, tmp_path_factory) -> Path:
    """A report; or that of the folder REPORT, such as the demo's."""
    if os.environ.get("REPORT"):
        return report(os.environ["REPORT"], output=tmp_path_factory.mktemp("page") / "report.html")
    folder = tmp_path_factory.mktemp("out")
    names = (HOSTILE,) * 3 if request.param == "hostile" else ()
    write_deployment(folder, DEPLOYMENTS[request.param](), names=names)
    return report(folder)


@pytest.fixture
def opened(browser, page_file):
    """Opens the report, and checks in the end that it asked for nothing and said nothing."""
    contexts, said, asked = [], [], []

    def opened(scheme="light", width=1200):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        return page

    yield opened
    assert asked
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {page_file.as_uri()}


@pytest.mark.parametrize(("scheme", "width"), SCREENS)
def test_every_picture_is_shown_and_the_page_is_as_wide_as_the_screen(opened, scheme, width):
    page = opened(scheme, width)
    sizes = page.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth, image.width])")
    assert len(sizes) == page.locator("figure").count() > 0
    assert all(complete and natural and shown for complete, natural, shown in sizes)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("scheme", "width"), SCREENS)
def test_axe_finds_nothing(opened, axe, scheme, width):
    page = opened(scheme, width)
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert not found, json.dumps(
        [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found], indent=1
    )


def test_the_keyboard_reaches_every_link_and_everything_that_scrolls(opened):
    page = opened(width=360)
    wanted = page.locator("a, .scroll, pre").count()
    seen = set()
    for _ in range(wanted):
        page.keyboard.press("Tab")
        place = page.evaluate(
            "[[...document.querySelectorAll('*')].indexOf(document.activeElement), "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert place[1] != "none"
        seen.add(place[0])
    assert len(seen) == wanted
    assert page.evaluate("document.activeElement.tagName") != "BODY"


def test_printed_it_is_black_on_white_and_whole(opened, browser):
    page = opened("dark")
    page.emulate_media(media="print")
    colors = (
        "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('section')).backgroundColor]"
    )
    assert page.evaluate(colors) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.pdf(format="A4").startswith(b"%PDF")
