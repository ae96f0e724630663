import os
import signal
import threading
import time

import pytest

from fcn_deploy.engines.tensorrt.monitor import BuildPhases, run_interruptibly


def test_phases_within_phases_add_up_to_one_share():
    shares = []
    phases = BuildPhases(shares.append)
    phases.start("all", None, 2)
    phases.start("part", "all", 4)
    for step in range(4):
        assert phases.step("part", step)
    phases.finish("part")
    assert shares == [0.125, 0.25, 0.375, 0.5]
    phases.step("all", 0)
    assert shares[-1] == 0.5
    phases.start("other part", "all", 2)
    phases.step("other part", 0)
    phases.finish("other part")
    phases.step("all", 1)
    phases.finish("all")
    assert shares[4:] == [0.75, 1.0]


def test_the_share_never_falls_nor_passes_the_whole():
    shares = []
    phases = BuildPhases(shares.append)
    phases.start("one", None, 2)
    phases.step("one", 0)
    phases.finish("one")
    phases.start("nothing to do", "unheard of", 0)
    phases.step("nothing to do", 0)
    phases.step("never begun", 7)
    phases.finish("never begun")
    assert shares == [0.5, 1.0]


def test_stop_is_heard_at_the_next_step():
    phases = BuildPhases(lambda share: None)
    phases.start("all", None, 2)
    assert phases.step("all", 0)
    phases.stop()
    assert not phases.step("all", 1)


def test_what_the_work_gives_or_raises_comes_back():
    assert run_interruptibly(lambda: threading.current_thread().name, lambda: None) == "build"
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(lambda: 1 // 0, lambda: None)


@pytest.mark.parametrize("delay", [0, 0.05])
def test_ctrl_c_stops_the_work_and_waits_for_it(delay):
    stopped, ended = threading.Event(), threading.Event()

    def work():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)
        stopped.wait(10)
        time.sleep(0.05)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(work, stopped.set)
    assert stopped.is_set()
    assert ended.is_set()
