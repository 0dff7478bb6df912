"""A worker thread: runs while it is started, is over when it is stopped, and can do so again."""

from __future__ import annotations

import threading

from blocks.worker_thread import WorkerThread


def test_start_stop_and_start_again() -> None:
    runs: list[str] = []
    running = threading.Event()

    def run() -> None:
        runs.append(threading.current_thread().name)
        running.set()
        assert worker.stopping.wait(10)

    worker = WorkerThread("reader", run)
    worker.stop()  # nothing to stop
    for turn in (1, 2):
        running.clear()
        worker.start()
        assert running.wait(10)
        worker.stop()
        assert runs == ["reader"] * turn
        assert "reader" not in [thread.name for thread in threading.enumerate()]


def test_stop_after_the_function_has_returned() -> None:
    done = threading.Event()
    worker = WorkerThread("short", done.set)
    worker.start()
    assert done.wait(10)
    worker.stop()
    worker.stop()


def test_what_ended_the_function_is_kept() -> None:
    def run() -> None:
        raise KeyError("a fault")

    worker = WorkerThread("faulty", run)
    worker.start()
    worker.stop()
    assert isinstance(worker.failure, KeyError)
