import json
from pathlib import Path

import numpy as np
import pytest

from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.workflows.predictions import Failure, Predictions, Speed, VideoPrediction, together


def speed(frames, seconds, latencies):
    return Speed(frames, seconds, Timing("a", np.array(latencies, float)))


def test_the_speed_of_several_sources_is_that_of_all_their_frames():
    both = together("net", [speed(4, 1.0, [10, 20]), None, speed(2, 2.0, [30])])
    assert (both.frames, both.frames_per_second) == (6, 2.0)
    assert both.latency.latencies.tolist() == [10, 20, 30]
    assert together("net", [None, None]) is None


def test_json_has_the_names_of_benchmark():
    found = speed(5, 2.0, [10, 20, 30, 40, 50]).to_json()
    assert found == {
        "frames_per_second": 2.5,
        "rounds": 5,
        "median_ms": 30.0,
        "min_ms": 10.0,
        "percentiles_ms": {"90": pytest.approx(46), "95": pytest.approx(48), "99": pytest.approx(49.6)},
    }


def test_frames_are_images_and_frames_of_videos():
    videos = (VideoPrediction("a.mp4", 7, 1, ()), VideoPrediction("b.mp4", 5, 0, ()))
    found = Predictions("net", 3, (), videos=videos)
    assert found.frames == 15
    assert json.loads(json.dumps(found.to_json()))["videos"][0]["damaged"] == 1
    found.require_complete()


@pytest.mark.parametrize(
    ("failed", "says"),
    [
        (("b.png",), "1 of 4 files could not be labelled; got b.png: no"),
        (("a.mp4",), "1 of 3 files could not be labelled in full; got a.mp4: no"),
        (("a.mp4", "b.png"), "2 of 4 files could not be labelled in full; got a.mp4: no; b.png: no"),
        (("1", "2", "3", "4", "5"), "5 of 8 files could not be labelled; got 1: no; 2: no; 3: no; and 2 more"),
    ],
)
def test_what_failed_is_counted_among_all_files(failed, says):
    failures = tuple(Failure(Path(name), f"{name}: no") for name in failed)
    found = Predictions("net", 2, (), failures, (VideoPrediction("a.mp4", 7, 1, ()),))
    with pytest.raises(InputError) as caught:
        found.require_complete()
    assert str(caught.value) == says
