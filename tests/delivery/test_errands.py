"""Errands: what the application gives us to call, on a thread that is there while it lasts."""

from __future__ import annotations

import threading

import pytest
from helpers import PATIENCE, refuse_our_threads

from userlens_instrument._delivery import errands as module
from userlens_instrument._delivery.errands import Errands


@pytest.fixture
def done():
    return []


@pytest.fixture
def name(request):
    return f"userlens {request.node.name}"


@pytest.fixture
def errands(name, done):
    return Errands(name, done.append)


@pytest.fixture
def threads(name):
    """Return a function that returns the threads of this test's errands."""
    return lambda: [one for one in threading.enumerate() if one.name == name]


def test_what_is_put_is_done_in_order_on_one_thread(errands, done, threads):
    """Each item once, in the order of put, and finish says when."""
    for number in range(1_000):
        errands.put(number)

    assert errands.finish(PATIENCE)
    assert list(range(1_000)) == done
    assert len(threads()) == 1


def test_nothing_to_do_is_no_thread(errands, threads):
    """To finish what was never begun starts nothing."""
    assert errands.finish(PATIENCE)
    assert not threads()


def test_the_thread_ends_when_there_is_nothing_to_do(errands, done, monkeypatch, threads):
    """It ends after a while, and the next item starts another."""
    monkeypatch.setattr(module, "_IDLE", 0.001)
    errands.put(1)
    for thread in threads():
        thread.join(PATIENCE)
    assert not threads()
    errands.put(2)

    assert errands.finish(PATIENCE)
    assert [1, 2] == done


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_whatever_it_raises_the_next_is_done(error):
    """An exception is the application's affair, and ends neither the thread nor the rest."""
    done = []

    def act(item):
        done.append(item)
        raise error

    errands = Errands("userlens-test", act)
    errands.put(1)
    errands.put(2)

    assert errands.finish(PATIENCE)
    assert [1, 2] == done


def test_one_that_hangs_is_not_waited_for_past_the_time():
    """finish says that it is not done."""
    release = threading.Event()
    errands = Errands("userlens-test", lambda item: release.wait(PATIENCE))
    errands.put(1)

    assert not errands.finish(0.01)
    release.set()


def test_where_no_thread_is_to_be_had_finish_does_it(errands, done, monkeypatch):
    """As at the exit of Python 3.12."""
    refuse_our_threads(monkeypatch)
    errands.put(1)
    assert not done

    assert errands.finish(PATIENCE)
    assert [1] == done


def test_an_item_that_comes_as_the_thread_ends_is_done(errands, done):
    """Between its last look and its end nothing is lost."""

    class Late:
        waits = 0

        def wait(self, timeout):
            self.waits += 1
            if self.waits == 1:
                errands._items.append("in between")
            return False

    errands._bell = Late()
    thread = threading.Thread(target=errands._run)
    thread.start()
    thread.join(PATIENCE)

    assert ["in between"] == done
    assert not errands._running


def test_one_that_was_started_afresh_lets_its_old_thread_go(errands):
    """In a fork on this very thread, that thread is the application's."""

    class Replaced:
        def wait(self, timeout):
            errands.reset()
            return False

    errands._bell = Replaced()
    thread = threading.Thread(target=errands._run)
    thread.start()
    thread.join(PATIENCE)

    assert not thread.is_alive()


def test_a_fork_on_the_thread_does_not_do_the_parents_errands_in_the_child(done):
    """What waits at the fork is the parent's, and the child's thread ends with its item."""
    errands = None

    def act(item):
        done.append(item)
        if item == 1:
            errands.reset()  # as the hook does in the child

    errands = Errands("userlens-test", act)
    waiting = errands._items
    waiting += (1, 2)
    thread = threading.Thread(target=errands._run)
    thread.start()
    thread.join(PATIENCE)

    assert [1] == done


@pytest.mark.parametrize("started", [False, True])
def test_a_signal_handler_that_raises_while_the_thread_starts(
    errands, done, threads, monkeypatch, started
):
    """It goes on to the application; what was put is done, by one thread."""
    start = threading.Thread.start

    def interrupted(self):
        if started:
            start(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            errands.put(1)
    errands.put(2)

    assert errands.finish(PATIENCE)
    assert [1, 2] == done
    assert len(threads()) == 1
