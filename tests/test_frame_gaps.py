"""Pictures that never came, by the gaps in their numbers."""

from __future__ import annotations

import random

from blocks.frame_gaps import FrameGaps


def missing(*numbers: tuple[int, int]) -> int:
    gaps = FrameGaps()
    for stream, number in numbers:
        gaps.note(stream, number)
    return gaps.missing


def test_gaps_are_counted_within_a_stream() -> None:
    assert missing((0, 7), (0, 8), (0, 12)) == 3
    assert missing((0, 7), (1, 12), (0, 8), (1, 13)) == 0


def test_numbers_wrap_around() -> None:
    assert missing((0, (1 << 32) - 2), (0, 1)) == 2


def test_what_comes_late_is_not_missing() -> None:
    assert missing((0, 1), (0, 5), (0, 3), (0, 3)) == 2


def test_another_run_of_a_sender_is_no_gap() -> None:
    assert missing((0, 1), (0, 3), (0, 3_000_000_000), (0, 3_000_000_002)) == 2


def test_sent_is_received_plus_missing() -> None:
    draw = random.Random(1)
    for _ in range(50):
        start = draw.randrange(1 << 32)
        numbers = [(start + k) % (1 << 32) for k in range(200)]
        heard = [numbers[0], *(one for one in numbers[1:-1] if draw.random() < 0.7), numbers[-1]]
        assert len(heard) + missing(*((3, one) for one in heard)) == len(numbers)
