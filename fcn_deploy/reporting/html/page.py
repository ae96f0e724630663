"""The page: every view, filled into the templates."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fcn_deploy.reporting.html import origin
from fcn_deploy.reporting.html.classes import class_table
from fcn_deploy.reporting.html.engines import engine_table
from fcn_deploy.reporting.html.evidence import Evidence
from fcn_deploy.reporting.html.gallery import exhibition
from fcn_deploy.reporting.html.layers import layer_table, range_table, sensitivity_table
from fcn_deploy.reporting.html.verdict import main_engine, tiles, verdict
from fcn_deploy.reporting.tables import describe_truth
from fcn_deploy.text import printable

# Names are shown up to this length, sentences up to the other: a page with longer ones cannot be read.
_LONGEST_NAME, _LONGEST_SENTENCE = 200, 2000


def render_page(evidence: Evidence) -> str:
    """Returns a report as one HTML document, which loads nothing and runs nothing.

    Every text that is filled in is escaped: names of files and classes come from other people.

    Args:
        evidence: What the report is made of.

    Raises:
        OverflowError: A number of the summary is too large to be shown.
    """
    summary, ranges, sensitivity = evidence.summary, evidence.ranges, evidence.sensitivity
    notes = evidence.notes if summary.truth is None else (describe_truth(summary.truth), *evidence.notes)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            summary=summary,
            verdict=verdict(summary),
            main_engine=main_engine(summary).file,
            tiles=tiles(summary),
            notes=notes,
            engines=engine_table(summary),
            classes=class_table(summary),
            gallery=exhibition(summary, evidence.pictures),
            layers=layer_table(summary),
            sensitivity=None if sensitivity is None else sensitivity_table(sensitivity),
            ranges=None if ranges is None else range_table(ranges),
            command=origin.command(summary),
            files=origin.files(summary),
            facts=origin.facts(summary),
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fcn_deploy.reporting.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["short"] = functools.partial(_short, longest=_LONGEST_NAME)
    environment.filters["sentence"] = functools.partial(_short, longest=_LONGEST_SENTENCE)
    return environment


def _shown(value: object) -> object:
    """Shows control characters and marks that turn the direction of writing as escapes; templates stay as they are."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _short(text: str, longest: int) -> str:
    """Leaves out the middle of a text that is too long to be read."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"
