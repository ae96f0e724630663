"""Cores are lent in order, and never more of them than there are."""

import os
import subprocess
import sys
import threading
import time

import pytest

from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime import onnxruntime as module
from fcn_deploy.runtime.cores import Cores, usable_cores


class Workers:
    """Threads that borrow cores and hold them until `stop`."""

    def __init__(self, cores):
        self.cores, self.holding, self.gates, self.threads = cores, [], {}, []

    def start(self, name, wanted):
        self.gates[name] = threading.Event()

        def work():
            with self.cores.lend(wanted):
                self.holding.append(name)
                self.gates[name].wait(10)
                self.holding.remove(name)

        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()
        self.settle()

    def stop(self, name):
        self.gates[name].set()
        self.settle()

    @staticmethod
    def settle():
        time.sleep(0.1)


def test_calls_run_together_if_there_are_cores_and_wait_in_order_otherwise():
    workers = Workers(Cores(4))
    for name, wanted in (("a", 2), ("b", 2), ("c", 4), ("d", 1)):
        workers.start(name, wanted)
    assert workers.holding == ["a", "b"]
    workers.stop("a")
    assert workers.holding == ["b"]  # d would fit, but c was first
    workers.stop("b")
    assert workers.holding == ["c"]
    workers.stop("c")
    assert workers.holding == ["d"]
    workers.stop("d")
    assert workers.holding == []


def test_a_call_that_wants_more_cores_than_there_are_gets_all():
    workers = Workers(Cores(2))
    workers.start("a", 64)
    assert workers.holding == ["a"]
    workers.stop("a")
    assert workers.holding == []


def test_cores_are_returned_after_an_error():
    cores = Cores(1)
    with pytest.raises(KeyError), cores.lend(1):
        raise KeyError
    with cores.lend(1):
        pass


def test_a_call_that_wants_no_cores_does_not_wait():
    workers = Workers(Cores(1))
    for name in ("a", "b"):
        workers.start(name, 1)
    workers.start("gpu", 0)
    assert workers.holding == ["a", "gpu"]
    for name in ("a", "b", "gpu"):
        workers.stop(name)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_all_cores_are_free_in_a_forked_process():
    script = """
import os, sys
from fcn_deploy.runtime.cores import CORES
with CORES.lend(CORES.count):
    child = os.fork()
    if child == 0:
        with CORES.lend(1):
            os._exit(7)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 7


@pytest.mark.parametrize(("threads", "together"), [(None, 1), (1, 2)])
def test_as_many_segmenters_run_at_the_same_time_as_there_are_cores_for(engine, photos, monkeypatch, threads, together):
    monkeypatch.setattr(module, "CORES", Cores(2))
    running, most, lock = 0, 0, threading.Lock()

    class Session:
        def __init__(self, session):
            self.run_session = session.run

        def run(self, *arguments):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.05)
            result = self.run_session(*arguments)
            with lock:
                running -= 1
            return result

    segmenters = [Segmenter(engine(), threads=threads) for _ in range(3)]
    for segmenter in segmenters:
        segmenter._backend._session = Session(segmenter._backend._session)
    workers = [threading.Thread(target=segmenter, args=(photos[0],)) for segmenter in segmenters]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for segmenter in segmenters:
        segmenter.close()
    assert most == together


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_only_cores_that_this_process_may_use_are_counted():
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    script += "from fcn_deploy.runtime.cores import CORES; print(CORES.count)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 1),
        ("0::/a/b\n", {"cpu.max": "max 100000"}, None),
        ("4:cpu,cpuacct:/x\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu,cpuacct:/x\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:memory:/x\n", {"cpu.max": "100000 100000"}, None),
        ("", {}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
    ],
)
def test_the_limit_of_a_container_counts(tmp_path, group, files, cores):
    (tmp_path / "cgroup").write_text(group)
    for name, content in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    every = usable_cores(tmp_path / "none", tmp_path / "fs")
    assert usable_cores(tmp_path / "cgroup", tmp_path / "fs") == (every if cores is None else cores)
