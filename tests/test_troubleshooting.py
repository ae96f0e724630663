"""The mistakes in docs/troubleshooting.md are answered as the page shows, at once if no work is needed to see them."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import pytest

from fcn_deploy.cli.app import run
from tests.support.troubled import write_workplace

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
SHOWN = re.findall(r"^```console\n\$ fcn-deploy ([^\n]*)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
# Seen only once the weights have been read.
WITH_WEIGHTS = ("resnet.pth", "seven.csv")
_STAGE = re.compile(r"^[^:]+: (running for |stopped after )?[\d.]+ s$")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    write_workplace(folder)
    return folder


def test_the_page_has_at_least_twenty_mistakes():
    assert len(SHOWN) >= 20


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_a_mistake_is_answered_as_the_page_shows(command, shown, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    begin = time.process_time()
    code = run(shlex.split(command))
    used = time.process_time() - begin
    said = capsys.readouterr()
    assert code in (2, 5, 6, 7)
    lines = [line for line in (said.out + said.err).splitlines() if not _STAGE.match(line)]
    words = " ".join(" ".join(lines).split())
    expected = ".*?".join(re.escape(part) for part in " ".join(shown.split()).split("[...]"))
    assert re.fullmatch(expected, words), words
    assert len([line for line in lines if line.lower().startswith("error: ")]) == 1
    if not any(name in command for name in WITH_WEIGHTS):
        assert used < 2
