"""Who holds up the virtual air, and for how long."""

from __future__ import annotations

from blocks.air_listeners import Listeners
from blocks.air_messages import Ready

SESSION = "s"


def listeners(*peers: bytes, most: int = 4) -> Listeners:
    made = Listeners(window=3, timeout_s=5.0, most=most)
    for peer in peers:
        made.ready(peer, Ready("", 0), SESSION, next_number=0)
    return made


def test_without_listeners_nothing_holds() -> None:
    assert listeners().may_send(1000, now_s=0.0)
    assert listeners().peers == []


def test_the_window_limits_what_is_on_its_way() -> None:
    made = listeners(b"a")
    assert [made.may_send(number, 0.0) for number in range(5)] == [True] * 3 + [False] * 2
    made.ready(b"a", Ready(SESSION, 1), SESSION, next_number=3)
    assert made.may_send(3, 0.0)
    assert not made.may_send(4, 0.0)


def test_the_slowest_holds() -> None:
    made = listeners(b"a", b"b")
    made.ready(b"a", Ready(SESSION, 3), SESSION, next_number=3)
    assert not made.may_send(3, 0.0)
    made.ready(b"b", Ready(SESSION, 1), SESSION, next_number=3)
    assert made.may_send(3, 0.0)


def test_who_holds_too_long_is_left_behind_and_may_come_back() -> None:
    made = listeners(b"a", b"b")
    made.ready(b"a", Ready(SESSION, 3), SESSION, next_number=3)
    assert not made.may_send(3, now_s=100.0)
    assert not made.may_send(3, now_s=104.9)
    assert made.may_send(3, now_s=105.0)
    assert made.peers == [b"a"]
    assert made.left_behind == 1
    made.ready(b"b", Ready(SESSION, 0), SESSION, next_number=3)
    assert made.peers == [b"a", b"b"]
    assert made.may_send(3, now_s=105.0)


def test_a_receiver_that_takes_something_is_patiently_waited_for() -> None:
    """It is the standstill that counts, not how far behind a receiver is."""
    made = listeners(b"a")
    for step in range(50):
        assert not made.may_send(3 + step, now_s=4.0 * step)
        made.ready(b"a", Ready(SESSION, 1 + step), SESSION, next_number=3 + step)
        assert made.may_send(3 + step, now_s=4.0 * step)
    assert made.left_behind == 0


def test_what_cannot_be_is_ignored() -> None:
    made = listeners(b"a")
    for wanted in (4, 1 << 60):
        made.ready(b"a", Ready(SESSION, wanted), SESSION, next_number=3)
    made.ready(b"a", Ready("another", 3), SESSION, next_number=3)
    made.ready(b"a", Ready(SESSION, 2), SESSION, next_number=3)
    made.ready(b"a", Ready(SESSION, 1), SESSION, next_number=3)  # late: it wants 2 by now
    assert made.may_send(4, 0.0)
    assert not made.may_send(5, 0.0)


def test_no_more_than_so_many() -> None:
    made = listeners(b"a", b"b", b"c", most=2)
    assert made.peers == [b"a", b"b"]
    assert made.turned_away == 1
    made.remove(b"a")
    made.ready(b"c", Ready("", 0), SESSION, next_number=0)
    assert made.to_json() == {
        "receivers": 2,
        "receivers_joined": 3,
        "receivers_gone": 1,
        "receivers_left_behind": 0,
        "receivers_turned_away": 1,
    }
