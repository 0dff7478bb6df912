"""What busy processes beside it cost the encoder, with threads that sleep while they wait and that spin.

``python -m benchmarks.neighbour``: four runs, each in a process of its own, because torch reads the
policy when it is loaded. Every figure is a ratio to the first run of the same call.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

_WARM_UP = 2


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10, help="timed in each run")
    parser.add_argument("--neighbours", type=int, default=1, help="busy processes beside it")
    parser.add_argument("--search-steps", type=int, default=0, help="of the encoder")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(_encode_s(chosen.pictures, chosen.search_steps))
        return
    alone_s = _run("PASSIVE", chosen)
    print(f"one picture, cores to itself, threads sleep: {1e3 * alone_s:.0f} ms = 1.0")
    print(f"threads spin, cores to itself: {_run('ACTIVE', chosen) / alone_s:.1f}")
    with _busy(chosen.neighbours):
        beside = f"beside {chosen.neighbours} busy"
        print(f"threads sleep, {beside}: {_run('PASSIVE', chosen) / alone_s:.1f}")
        print(f"threads spin, {beside}: {_run('ACTIVE', chosen) / alone_s:.1f}")


def _run(policy: str, chosen: argparse.Namespace) -> float:
    """Seconds per picture in a process with this policy."""
    command = [sys.executable, "-m", "benchmarks.neighbour", "--child"]
    command += ["--pictures", str(chosen.pictures), "--search-steps", str(chosen.search_steps)]
    environment = {**os.environ, "OMP_WAIT_POLICY": policy}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def _encode_s(pictures: int, search_steps: int) -> float:
    """Median seconds per picture."""
    from semantic.codec.loader import load_codec
    from semantic.codec.settings import EncoderSettings
    from semantic.demo_photos import describe_photo, load_photo

    codec = load_codec(None, "cpu")
    photo, query = load_photo("chelsea", 256), describe_photo("chelsea").questions[0]
    settings = EncoderSettings(search_steps=search_steps)
    times_s = []
    for number in range(_WARM_UP + pictures):
        started = time.perf_counter()
        codec.encode(photo, query, settings, number)
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s[_WARM_UP:])


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Processes that want a core each, all the time."""
    neighbours = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for one in neighbours:
        one.start()
    try:
        yield
    finally:
        for one in neighbours:
            one.terminate()
            one.join()


def _spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
