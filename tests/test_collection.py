"""Every test file on disk is collected: what pytest passes over, nobody runs."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def test_every_test_file_on_disk_is_collected(pytestconfig, collected_files):
    if [pytestconfig.rootpath / argument for argument in pytestconfig.args] != [TESTS]:
        pytest.skip("only some of the tests were asked for")
    on_disk = set(TESTS.rglob("test_*.py"))
    assert len(on_disk) > 100
    assert collected_files == on_disk
