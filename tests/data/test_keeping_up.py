import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from fcn_deploy.data.frames import Frame, Selection
from fcn_deploy.data.keeping_up import KeepingUp
from fcn_deploy.errors import InputError


class Camera:
    """Gives what it is told to, each after a moment."""

    name, path, live, total, rate = "camera:0", None, True, None, Fraction(30)
    time_base, pixel_aspect, has_audio, left_out = Fraction(1, 30), Fraction(1), False, 0

    def __init__(self, found, moment=0.0):
        self._found, self._moment = found, moment
        self.given = threading.Event()

    def frames(self):
        for each in self._found:
            time.sleep(self._moment)
            if isinstance(each, RuntimeError):
                raise each
            yield each
        self.given.set()


def frames(count):
    return [Frame(index, index, 1, np.zeros((1, 1, 3), np.uint8)) for index in range(count)]


def test_who_is_fast_enough_gets_every_frame_and_error_in_order():
    found = [*frames(5), InputError("damaged"), *frames(9)[6:]]
    with KeepingUp(Camera(found, 0.01), Selection()) as newest:
        assert list(newest.frames()) == found
    assert newest.left_out == 0


def test_who_is_slow_gets_the_newest_and_is_told_how_many_were_left_out():
    error = InputError("damaged")
    camera = Camera([error, *frames(50)])
    with KeepingUp(camera, Selection(), 4) as newest:
        assert camera.given.wait(5)
        first, *rest = newest.frames()
    assert first is error
    assert [frame.index for frame in rest] == [46, 47, 48, 49]
    assert newest.left_out == 46


def test_frames_that_are_not_taken_are_not_left_out():
    camera = Camera(frames(50))
    with KeepingUp(camera, Selection(every=10), 4) as newest:
        assert camera.given.wait(5)
        assert [frame.index for frame in newest.frames()] == [10, 20, 30, 40]
    assert newest.left_out == 1


def test_it_ends_when_nobody_asks_for_more():
    with KeepingUp(Camera(frames(1000), 0.01), Selection()) as newest:
        assert next(newest.frames()).index == 0
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
    assert not newest._thread.is_alive()


def test_what_fails_in_the_thread_is_raised_where_frames_are_asked_for():
    with KeepingUp(Camera([*frames(1), RuntimeError("bad luck")]), Selection()) as newest:
        found = newest.frames()
        assert next(found).index == 0
        with pytest.raises(RuntimeError, match="bad luck"):
            next(found)
