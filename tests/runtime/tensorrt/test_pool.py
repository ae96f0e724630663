"""The pool in short memory, with many threads, and things that break: nothing is lost, used twice, or waited for."""

import random
import sys
import threading
import time
from contextlib import suppress

import pytest

from fcn_deploy.errors import ClosedError, InputError
from fcn_deploy.runtime.tensorrt.cuda import OutOfMemoryError
from fcn_deploy.runtime.tensorrt.pool import Pool


class Memory:
    def __init__(self, room):
        self.room, self.used, self.lock = room, 0, threading.Lock()

    def take(self, size):
        with self.lock:
            if self.used + size > self.room:
                raise OutOfMemoryError("the memory is full")
            self.used += size


class Thing:
    def __init__(self, memory, size):
        memory.take(size)
        self.memory, self.size, self.used, self.freed = memory, size, False, False

    def fit(self, size):
        if size > self.size:
            self.memory.take(size - self.size)
            self.size = size

    def free(self):
        assert not self.used
        assert not self.freed
        self.freed = True
        with self.memory.lock:
            self.memory.used -= self.size


class BrokenError(Exception):
    pass


class FreeingError(Exception):
    pass


def work_of(chance, biggest):
    """One call: it uses a thing alone, grows it, and sometimes fails, early or late."""
    need, fate = chance.randint(1, biggest), chance.random()

    def work(thing):
        assert not thing.used
        assert not thing.freed
        thing.used = True
        try:
            if fate < 0.02:
                raise InputError("refused")
            thing.fit(need)
            if fate < 0.04:
                raise BrokenError
            if fate < 0.3:
                time.sleep(1e-5)
            return need
        finally:
            thing.used = False

    return need, work


@pytest.fixture(autouse=True)
def threads_that_change_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("breaks", [0, 0.2])
@pytest.mark.parametrize("closed", [False, True])
def test_any_calls_that_fit_alone_succeed_together(closed, breaks):
    for seed in range(10):  # of 1,000 calls
        chance = random.Random(seed)
        base, limit, threads = chance.randint(1, 10), chance.randint(1, 8), chance.randint(2, 12)
        biggest = chance.randint(base, 50)
        memory, wrong = Memory(chance.randint(biggest, 6 * biggest)), []

        def free(thing, chance=chance):
            thing.free()
            if chance.random() < breaks:
                raise FreeingError

        pool = Pool(lambda memory=memory, base=base: Thing(memory, base), free, limit)

        def calls(number, pool=pool, biggest=biggest, threads=threads, wrong=wrong, seed=seed):
            own = random.Random(1000 * seed + number)
            for _ in range(1000 // threads):
                need, work = work_of(own, biggest)
                try:
                    assert pool.use(work) == need
                except (InputError, BrokenError):
                    pass
                except ClosedError as error:
                    if not closed:
                        wrong.append(error)
                    return
                except BaseException as error:
                    wrong.append(error)

        running = [threading.Thread(target=calls, args=(number,), daemon=True) for number in range(threads)]
        for thread in running:
            thread.start()
        if closed:
            time.sleep(0.005 * chance.random())
            end(pool)
        for thread in running:
            thread.join(60)
            assert not thread.is_alive(), f"seed {seed} waits for ever"
        end(pool)
        assert wrong == [], seed
        assert memory.used == 0, seed


def end(pool):
    with suppress(FreeingError):  # all are freed all the same
        pool.close()


def test_an_idle_thing_that_cannot_be_freed_is_not_the_callers_error(caplog):
    memory = Memory(10)
    broken = []

    def free(thing):
        thing.free()
        broken.append(thing)
        raise FreeingError("no answer")

    pool = Pool(lambda: Thing(memory, 1), free, 2)
    pool.use(lambda thing: (thing.fit(6), pool.use(lambda other: other.fit(4))))
    assert memory.used == 10
    assert pool.use(lambda thing: thing.fit(8)) is None  # grows what fits 4 or 6, in the room of the other
    assert broken
    assert "not everything could be freed: no answer" in caplog.text
