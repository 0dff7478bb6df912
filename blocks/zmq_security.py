"""Who may connect: CURVE keys, the list of those allowed, and a count of those who were not.

Messages between processes are authenticated and encrypted by ZMQ's own CURVE (RFC 26, libsodium). Whoever
binds is the server and lets in the public keys on its list; whoever connects knows the server's public key
and thereby talks to nobody else. Key files are pyzmq's certificates.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.auth import Authenticator, create_certificates, load_certificate

from blocks.worker_thread import WorkerThread

_LOG = logging.getLogger(__name__)

SECRET_SUFFIX = ".key_secret"
PUBLIC_SUFFIX = ".key"
# A domain of our own, enforced: without our handler on the context nobody gets in.
ZAP_DOMAIN = "uoisc"

_KEY_CHARACTERS = 40
_MAX_FILE_BYTES = 64 * 1024
_POLL_MS = 100


class KeyFileError(ValueError):
    """A key that cannot be read, used or written; the message is one line."""


@dataclass(frozen=True)
class CurveKeys:
    """The keys of one process, as Z85 text of 40 characters.

    Args:
        public: its own public key.
        secret: its own secret key.
        server: public key of the side that it connects to.
        allowed: public keys that may connect to it.
    """

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes
    allowed: frozenset[bytes]


def load_keys(own: str, server: str | None = None, allowed: Sequence[str] = ()) -> CurveKeys:
    """Keys as a profile names them.

    Args:
        own: file with public and secret key (``uoisc keys new``), readable for its owner alone.
        server: public key of the other side, or a file that holds it; None: the same as our own.
        allowed: public keys, or files that hold them; none: our own alone.

    Raises:
        KeyFileError: a file that is missing, malformed, or readable for others.
    """
    public, secret = _load_secret(Path(own))
    return CurveKeys(
        public,
        secret,
        public if server is None else _public_key(server),
        frozenset(_public_key(one) for one in allowed) or frozenset({public}),
    )


def write_key_pair(folder: Path, name: str) -> tuple[Path, Path, str]:
    """Make a key pair: ``name.key`` and ``name.key_secret``, both of mode 0600.

    Args:
        folder: made where it does not exist.
        name: of the pair.

    Returns:
        Both files, public first, and the public key.

    Raises:
        KeyFileError: a file of that name exists, or cannot be written.
    """
    targets = [folder / f"{name}{suffix}" for suffix in (PUBLIC_SUFFIX, SECRET_SUFFIX)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Written where nobody else can look, and only then given their names. A link does not replace
        # a file that is there: a key that is lost locks a laboratory out.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".keys.") as hidden:
            made = create_certificates(hidden, name)
            for source in made:
                os.chmod(source, 0o600)
            for target in targets:
                if os.path.lexists(target):  # a link that leads nowhere is something, too
                    raise FileExistsError(errno.EEXIST, "exists and is not replaced", str(target))
            linked: list[Path] = []
            try:
                for source, target in zip(made, targets, strict=True):
                    os.link(source, target)
                    linked.append(target)
            except OSError:
                for target in linked:  # no half of a pair
                    target.unlink()
                raise
    except OSError as error:
        raise KeyFileError(f"{error.filename or folder}: {error.strerror}") from None
    return targets[0], targets[1], _public_key(str(targets[0])).decode()


def _load_secret(path: Path) -> tuple[bytes, bytes]:
    public, secret = _load_file(path)
    if secret is None:
        raise KeyFileError(f"{path}: holds no secret key, expected a *{SECRET_SUFFIX} file")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyFileError(
            f"{path}: others may read this secret key, expected mode 0600 (chmod 600)"
        )
    try:
        if zmq.curve_public(secret) == public:
            return public, secret
    except (zmq.ZMQError, ValueError):
        pass
    raise KeyFileError(f"{path}: secret and public key do not belong together")


def _public_key(text: str) -> bytes:
    """The key itself, or the file that holds it."""
    if len(text) == _KEY_CHARACTERS and not Path(text).exists():
        return _check_key(text.encode(), "public key")
    return _load_file(Path(text))[0]


def _load_file(path: Path) -> tuple[bytes, bytes | None]:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_FILE_BYTES:
            public, secret = None, None
        else:
            public, secret = load_certificate(path)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except ValueError:  # pyzmq's, where it finds no key
        public, secret = None, None
    if public is None:
        raise KeyFileError(f"{path}: holds no public key, expected a file of uoisc keys new")
    return _check_key(public, str(path)), secret and _check_key(secret, str(path))


def _check_key(key: bytes, where: str) -> bytes:
    try:
        # Checks the alphabet, too; any 32 bytes are a valid key.
        zmq.curve_public(key)
    except (zmq.ZMQError, ValueError):
        raise KeyFileError(
            f"{where}: not a key, expected {_KEY_CHARACTERS} characters of Z85"
        ) from None
    return key


class SocketGuard:
    """Lets in whom the keys allow, and counts who did not get in. One for each ZMQ context.

    It has to be there before the sockets that it guards are bound. Counted are attempts: a ZMQ client
    that is turned away tries again and again.

    Args:
        context: whose sockets are guarded.
        keys: of a side that binds. None where nothing is encrypted, and on a side that only connects:
            then nobody is let in or kept out, but failures are counted.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys | None) -> None:
        self.keys_refused = 0
        self.handshakes_failed = 0
        self.connections = 0
        self._keys = keys
        self._watched: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]] = []
        self._worker = WorkerThread("SocketGuard", self._run)
        self._authenticator: Authenticator | None = None
        if keys is not None:
            quiet = logging.getLogger(f"{__name__}.zap")
            quiet.setLevel(logging.CRITICAL)
            self._authenticator = Authenticator(context, log=quiet)
            self._authenticator.configure_curve_callback(ZAP_DOMAIN, self)
            self._authenticator.start()

    def callback(self, _domain: str, key: bytes) -> bool:
        """Called by pyzmq: whether a public key may connect."""
        assert self._keys is not None
        if key in self._keys.allowed:
            return True
        self.keys_refused += 1
        if is_worth_a_line(self.keys_refused):
            _LOG.warning("key refused (%d so far): %s", self.keys_refused, key.decode("latin-1"))
        return False

    def watch(self, socket: zmq.Socket[bytes]) -> None:
        """Count handshakes on a socket, those that fail and those that do not; before :meth:`start`."""
        events = (
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self._watched.append((socket, socket.get_monitor_socket(events)))

    def start(self) -> None:
        """Begin to let in and to count."""
        self._worker.start()

    def close(self) -> None:
        """Stop, before the watched sockets are closed; then nobody new gets in where there are keys."""
        self._worker.stop()
        for socket, monitor in self._watched:
            if not socket.closed:
                socket.disable_monitor()
            monitor.close()
        self._watched.clear()
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None

    @property
    def failure(self) -> BaseException | None:
        """What ended the guard's thread: nobody new gets in without it."""
        return self._worker.failure

    def to_json(self) -> dict[str, int]:
        """The counts by cause."""
        return {"keys_refused": self.keys_refused, "handshakes_failed": self.handshakes_failed}

    def _run(self) -> None:
        poller = zmq.Poller()
        authenticator = self._authenticator
        if authenticator is not None:
            poller.register(authenticator.zap_socket, zmq.POLLIN)
        monitors = [monitor for _, monitor in self._watched]
        for monitor in monitors:
            poller.register(monitor, zmq.POLLIN)
        while not self._worker.stopping.is_set():
            ready = dict(poller.poll(_POLL_MS))
            if authenticator is not None and authenticator.zap_socket in ready:
                authenticator.handle_zap_message(authenticator.zap_socket.recv_multipart())
            for monitor in monitors:
                if monitor in ready:
                    self._count(monitor.recv_multipart())

    def _count(self, message: list[bytes]) -> None:
        (event,) = struct.unpack_from("=H", message[0])
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connections += 1
            return
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            # The side that binds has counted the key itself; the other only learns of it here.
            if self._authenticator is None:
                self.keys_refused += 1
            return
        self.handshakes_failed += 1
        if is_worth_a_line(self.handshakes_failed):
            _LOG.warning("handshake failed (%d so far)", self.handshakes_failed)


def is_worth_a_line(count: int) -> bool:
    """Whether the count-th event of a kind is logged: the first three, then powers of ten.

    A peer that misbehaves as fast as it can must not fill the disk with warnings.
    """
    return count <= 3 or (count >= 10 and count == 10 ** (len(str(count)) - 1))
