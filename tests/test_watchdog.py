"""The watchdog barks when a count stands still, and not before."""

from __future__ import annotations

from flowgraphs.radio_settings import RadioError
from flowgraphs.watchdog import Watchdog


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_quiet_while_samples_come() -> None:
    clock = Clock()
    dog = Watchdog(3.0, clock)
    for count in range(1, 50):
        clock.now_s += 2.9
        assert dog.check(count) is None


def test_no_samples_at_all() -> None:
    clock = Clock()
    dog = Watchdog(3.0, clock)
    assert dog.check(0) is None
    clock.now_s += 2.9
    assert dog.check(0) is None
    clock.now_s += 0.2
    error = dog.check(0)
    assert isinstance(error, RadioError)
    assert "no samples came from the radio: waited 3.1 s" in str(error)
    assert "clock_source" in str(error)


def test_silence_after_a_while_and_back_again() -> None:
    clock = Clock()
    dog = Watchdog(3.0, clock)
    assert dog.check(5000) is None
    clock.now_s += 4
    assert "went silent after 5000 samples" in str(dog.check(5000))
    assert dog.check(5001) is None
    assert dog.silent_s(5001) == 0
