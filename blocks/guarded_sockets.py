"""The sockets of one block: opened together or not at all, watched, and given back together."""

from __future__ import annotations

import zmq

from blocks.zmq_messages import SocketLimits, open_socket
from blocks.zmq_security import CurveKeys, SocketGuard


class GuardedSockets:
    """A ZMQ context of its own, whose sockets a :class:`~blocks.zmq_security.SocketGuard` watches.

    Open the sockets, then :meth:`start`.

    Args:
        keys: None where nothing is encrypted.
        binds: whether this side lets others in, by their keys; one that only connects counts failures.
    """

    def __init__(self, keys: CurveKeys | None, *, binds: bool) -> None:
        self._keys = keys
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._sockets: list[zmq.Socket[bytes]] = []
        self.guard = SocketGuard(self._context, keys if binds else None)

    def open(
        self,
        kind: int,
        *,
        bind: str | None = None,
        connect: str | None = None,
        limits: SocketLimits,
    ) -> zmq.Socket[bytes]:
        """One more socket, arguments as of :func:`~blocks.zmq_messages.open_socket`.

        Raises:
            AddressError: the address is in use or cannot be understood; all sockets are given back.
        """
        try:
            # Watched before it is connected, or the first connection might be missed.
            socket = open_socket(
                self._context,
                kind,
                bind=bind,
                connect=connect,
                limits=limits,
                keys=self._keys,
                prepare=self.guard.watch,
            )
        except BaseException:
            self.guard.close()
            self._context.destroy(linger=0)
            raise
        self._sockets.append(socket)
        return socket

    def start(self) -> None:
        """Begin to let in and to count."""
        self.guard.start()

    def close(self) -> None:
        """Give everything back; what is on its way leaves as far as each socket's linger time allows."""
        self.guard.close()
        for socket in self._sockets:
            socket.close()
        self._context.term()
