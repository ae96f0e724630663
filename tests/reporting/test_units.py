import math

import pytest

from fcn_deploy.reporting.units import interval_95


@pytest.mark.parametrize(
    ("low", "high", "form", "text"),
    [
        (0.981, 0.99249, ".2%", " (95% interval 98.10% to 99.25%)"),
        (-0.1, 0.3, "+.1f", " (95% interval -0.1 to +0.3)"),
        (math.nan, math.nan, ".2%", " (one image: no interval)"),
    ],
)
def test_an_interval_follows_its_figure_and_one_image_has_none(low, high, form, text):
    assert interval_95(low, high, form) == text
