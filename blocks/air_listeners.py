"""Who listens to a virtual air, and whether the next chunk may go out. No GNU Radio, no sockets."""

from __future__ import annotations

from dataclasses import dataclass

from blocks.air_messages import Ready


@dataclass
class _Listener:
    """Chunks before ``wanted`` have been handed on; ``held_since_s`` tells since when it holds us up."""

    wanted: int
    held_since_s: float | None = None


class Listeners:
    """The receivers of one transmitter.

    Args:
        window: chunks that may be on their way to a receiver.
        timeout_s: a receiver that holds up the transmitter for so long is left behind.
        most: receivers at a time.
    """

    def __init__(self, window: int, timeout_s: float, most: int) -> None:
        self.joined = 0
        self.gone = 0
        self.left_behind = 0
        self.turned_away = 0
        self._window = window
        self._timeout_s = timeout_s
        self._most = most
        self._listeners: dict[bytes, _Listener] = {}

    @property
    def peers(self) -> list[bytes]:
        """Their addresses at the socket."""
        return list(self._listeners)

    def ready(self, peer: bytes, ready: Ready, session: str, next_number: int) -> None:
        """A receiver has said what it wants.

        Args:
            peer: its address at the socket.
            ready: what it said.
            session: ours.
            next_number: of the chunk that is sent next.
        """
        listener = self._listeners.get(peer)
        if listener is None:
            if len(self._listeners) >= self._most:
                self.turned_away += 1
                return
            self.joined += 1
            self._listeners[peer] = _Listener(next_number)
        elif ready.session == session and listener.wanted < ready.wanted <= next_number:
            listener.wanted = ready.wanted
            listener.held_since_s = None

    def may_send(self, next_number: int, now_s: float) -> bool:
        """Whether every receiver has room for the next chunk; leaves behind those that had none too long."""
        free = True
        for peer, listener in list(self._listeners.items()):
            if next_number - listener.wanted < self._window:
                continue
            if listener.held_since_s is None:
                listener.held_since_s = now_s
            if now_s - listener.held_since_s < self._timeout_s:
                free = False
                continue
            del self._listeners[peer]
            self.left_behind += 1
        return free

    def remove(self, peer: bytes) -> None:
        """A receiver's connection has gone."""
        del self._listeners[peer]
        self.gone += 1

    def to_json(self) -> dict[str, int]:
        """The counts."""
        return {
            "receivers": len(self._listeners),
            "receivers_joined": self.joined,
            "receivers_gone": self.gone,
            "receivers_left_behind": self.left_behind,
            "receivers_turned_away": self.turned_away,
        }
