"""CURVE keys: files, and who gets in. Real sockets; everything is counted."""

from __future__ import annotations

import os
import socket as sockets
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from gnuradio import blocks as gr_blocks
from gnuradio import gr

from blocks.air_messages import Ready, pack_ready, parse_chunk
from blocks.air_sink import AirSink
from blocks.frame_sender import FrameSender, NobodyTakesError
from blocks.index_sink import IndexSink
from blocks.index_source import IndexSource
from blocks.zmq_messages import (
    TOPIC_FRAME,
    TOPIC_STATISTICS,
    MessageWriter,
    SocketLimits,
    bound_address,
    open_socket,
    unpack_frame,
)
from blocks.zmq_security import (
    CurveKeys,
    KeyFileError,
    SocketGuard,
    is_worth_a_line,
    load_keys,
    write_key_pair,
)
from semantic.link_statistics import LinkStatistics
from tests.link_parts import ANY_PORT, GEOMETRY, PATIENCE_S, random_frame, wait_until

LIMITS = SocketLimits(4, 5000)
_WAIT_MS = int(1000 * PATIENCE_S)
# Long enough for a handshake many times over; a peer that gets something in spite of it fails the test.
_NOTHING_MS = 500


def pair() -> tuple[bytes, bytes]:
    public, secret = zmq.curve_keypair()
    return public, secret


@pytest.fixture
def server() -> CurveKeys:
    public, secret = pair()
    return CurveKeys(public, secret, public, frozenset({public}))


def stranger_to(server: CurveKeys) -> CurveKeys:
    """Knows the server's public key, but is not on its list."""
    public, secret = pair()
    return CurveKeys(public, secret, server.public, frozenset())


def mistaken_about(server: CurveKeys) -> CurveKeys:
    """Is on the list (the server's own key), but expects another server."""
    return CurveKeys(server.public, server.secret, pair()[0], frozenset())


def peer(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str, keys: CurveKeys | None
) -> zmq.Socket[bytes]:
    """A socket that takes messages before it is connected, and keeps trying to get rid of them."""
    socket = context.socket(kind)
    socket.linger = 0
    if keys is not None:
        socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
        socket.curve_serverkey = keys.server
    socket.connect(address)
    return socket


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made = zmq.Context[zmq.Socket[bytes]]()
    yield made
    made.destroy(linger=0)


# --- files -------------------------------------------------------------------------------------------


def test_key_files(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        public_file, secret_file, public = write_key_pair(tmp_path / "a" / "b", "lab")
    finally:
        os.umask(old)
    assert [public_file.name, secret_file.name] == ["lab.key", "lab.key_secret"]
    assert {path.stat().st_mode & 0o777 for path in (public_file, secret_file)} == {0o600}
    assert sorted(public_file.parent.iterdir()) == [public_file, secret_file]
    keys = load_keys(str(secret_file))
    assert keys.public == keys.server == public.encode()
    assert keys.allowed == {keys.public}
    assert zmq.curve_public(keys.secret) == keys.public
    assert keys.secret.decode() not in repr(keys)
    assert keys.secret not in public_file.read_bytes()


def test_other_keys_as_text_and_as_files(tmp_path: Path) -> None:
    _, own, own_public = write_key_pair(tmp_path, "own")
    other_file, _, other = write_key_pair(tmp_path, "other")
    by_file = load_keys(str(own), server=str(other_file), allowed=[str(other_file), own_public])
    by_text = load_keys(str(own), server=other, allowed=[other, own_public])
    assert by_file == by_text
    assert by_text.server == other.encode()
    assert by_text.allowed == {other.encode(), own_public.encode()}


def test_a_key_pair_is_never_overwritten(tmp_path: Path) -> None:
    write_key_pair(tmp_path, "lab")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyFileError, match=r"lab\.key: exists"):
        write_key_pair(tmp_path, "lab")
    (tmp_path / "lab.key").unlink()
    with pytest.raises(KeyFileError, match=r"lab\.key_secret: exists"):
        write_key_pair(tmp_path, "lab")
    after = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert after == {path: before[path] for path in after}
    assert [path.name for path in after] == ["lab.key_secret"]


@pytest.mark.parametrize("name", ["lab.key", "lab.key_secret"])
def test_a_link_that_leads_nowhere_leaves_no_half_of_a_pair(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(KeyFileError, match="exists and is not replaced"):
        write_key_pair(tmp_path, "lab")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="file"):
        write_key_pair(tmp_path / "file" / "keys", "lab")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    _, secret_file, _ = write_key_pair(tmp_path, "lab")
    secret_file.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_keys(str(secret_file))


def test_files_that_are_no_keys(tmp_path: Path) -> None:
    public_file, secret_file, public = write_key_pair(tmp_path, "lab")
    with pytest.raises(KeyFileError, match="holds no secret key"):
        load_keys(str(public_file))
    with pytest.raises(KeyFileError, match="No such file"):
        load_keys(str(tmp_path / "none"))
    with pytest.raises(KeyFileError):
        load_keys(str(tmp_path))
    for text in ("", "nonsense", "public-key = x\n", 'public-key = "' + "~" * 40 + '"\n'):
        bad = tmp_path / "bad"
        bad.write_text(text)
        with pytest.raises(KeyFileError, match=str(bad)):
            load_keys(str(bad))
    swapped = tmp_path / "swapped"
    swapped.write_text(secret_file.read_text().replace(public, pair()[0].decode()))
    swapped.chmod(0o600)
    with pytest.raises(KeyFileError, match="do not belong together"):
        load_keys(str(swapped))
    for key in ("x" * 39, "~" * 40, str(tmp_path / "none.key")):
        with pytest.raises(KeyFileError):
            load_keys(str(secret_file), server=key)
        with pytest.raises(KeyFileError):
            load_keys(str(secret_file), allowed=[key])
    (tmp_path / "huge").write_bytes(b"public-key = x\n" * 10_000)
    with pytest.raises(KeyFileError, match="huge: holds no public key"):
        load_keys(str(tmp_path / "huge"))


# --- who gets in ---------------------------------------------------------------------------------------


class Door:
    """A guarded PULL socket."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys | None) -> None:
        self.guard = SocketGuard(context, keys)
        self.pull = open_socket(context, zmq.PULL, bind=ANY_PORT, limits=LIMITS, keys=keys)
        self.guard.watch(self.pull)
        self.guard.start()
        self.address = bound_address(self.pull)

    def close(self) -> None:
        self.guard.close()
        self.pull.close()


@pytest.fixture
def door(context: zmq.Context[zmq.Socket[bytes]], server: CurveKeys) -> Iterator[Door]:
    made = Door(context, server)
    yield made
    made.close()


Knock = Callable[[CurveKeys | None], zmq.Socket[bytes]]


@pytest.fixture
def knock(door: Door) -> Iterator[Knock]:
    """A peer from a context of its own that sends one message."""
    contexts: list[zmq.Context[zmq.Socket[bytes]]] = []
    kept: list[zmq.Socket[bytes]] = []  # a socket that is collected takes its message with it

    def make(keys: CurveKeys | None) -> zmq.Socket[bytes]:
        contexts.append(zmq.Context[zmq.Socket[bytes]]())
        push = peer(contexts[-1], zmq.PUSH, door.address, keys)
        push.send(b"hello")
        kept.append(push)
        return push

    yield make
    for one in contexts:
        one.destroy(linger=0)


def test_the_right_key_gets_in(door: Door, knock: Knock, server: CurveKeys) -> None:
    knock(server)
    assert door.pull.poll(_WAIT_MS)
    assert door.pull.recv() == b"hello"
    assert door.guard.to_json() == {"keys_refused": 0, "handshakes_failed": 0}


def test_a_key_that_is_not_on_the_list_is_refused_and_counted(
    door: Door, knock: Knock, server: CurveKeys
) -> None:
    knock(stranger_to(server))
    wait_until(lambda: door.guard.keys_refused >= 1, "the refusal")
    assert not door.pull.poll(_NOTHING_MS)
    knock(server)
    assert door.pull.poll(_WAIT_MS)


def test_without_a_key_nobody_gets_in(door: Door, knock: Knock, server: CurveKeys) -> None:
    knock(None)
    wait_until(lambda: door.guard.handshakes_failed >= 1, "the failure")
    assert not door.pull.poll(_NOTHING_MS)
    knock(server)
    assert door.pull.poll(_WAIT_MS)


def test_who_expects_another_server_does_not_get_in(
    door: Door, knock: Knock, server: CurveKeys
) -> None:
    knock(mistaken_about(server))
    wait_until(lambda: door.guard.handshakes_failed >= 1, "the failure")
    assert not door.pull.poll(_NOTHING_MS)


def test_bytes_that_are_not_zmq(door: Door, knock: Knock, server: CurveKeys) -> None:
    host, port = door.address.removeprefix("tcp://").split(":")
    for junk in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, bytes(range(256))):
        with sockets.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(junk)
    # ZMQ reports the first and the third as failures, the others as connections that ended.
    wait_until(lambda: door.guard.handshakes_failed >= 2, "the failures")
    knock(server)
    assert door.pull.poll(_WAIT_MS)


def test_without_a_guard_keys_let_nobody_in(
    context: zmq.Context[zmq.Socket[bytes]], server: CurveKeys
) -> None:
    """Forgetting the guard must not open the door to every key there is."""
    pull = open_socket(context, zmq.PULL, bind=ANY_PORT, limits=LIMITS, keys=server)
    with zmq.Context() as other:
        for keys in (server, stranger_to(server)):
            push = peer(other, zmq.PUSH, bound_address(pull), keys)
            push.send(b"hello")
        assert not pull.poll(_NOTHING_MS)
        other.destroy(linger=0)


def test_a_flood_of_refused_peers_does_not_stop_the_door(
    door: Door, knock: Knock, server: CurveKeys
) -> None:
    for _ in range(20):
        knock(stranger_to(server))
        knock(None)
    wait_until(lambda: door.guard.keys_refused >= 20, "the refusals")
    knock(server)
    assert door.pull.poll(_WAIT_MS)
    assert door.pull.recv() == b"hello"
    assert not door.pull.poll(_NOTHING_MS)


def test_few_lines_for_many_events() -> None:
    assert [n for n in range(1, 10_001) if is_worth_a_line(n)] == [1, 2, 3, 10, 100, 1000, 10_000]


# --- the blocks ----------------------------------------------------------------------------------------


def test_frames_in(server: CurveKeys) -> None:
    source = IndexSource(ANY_PORT, keys=server)
    try:
        for keys, words in (
            (stranger_to(server), "our key is refused"),
            (mistaken_about(server), "handshake fails"),
            (None, "handshake fails"),
        ):
            with (
                FrameSender(source.address, 1.0, keys=keys) as sender,
                pytest.raises(NobodyTakesError, match=words),
            ):
                sender.send(random_frame(1))
        with FrameSender(source.address, PATIENCE_S, keys=server) as sender:
            sender.send(random_frame(2))
        source.start()
        wait_until(lambda: source.frames_accepted == 1, "the frame")
        counts = source.socket_counts()
        assert counts["keys_refused"] >= 1
        assert counts["handshakes_failed"] >= 2
    finally:
        source.close()


def test_pictures_and_watch(server: CurveKeys) -> None:
    sink = IndexSink(ANY_PORT, ANY_PORT, [GEOMETRY], LinkStatistics(), keys=server)
    strange, known = zmq.Context[zmq.Socket[bytes]](), zmq.Context[zmq.Socket[bytes]]()
    try:
        ears = []
        for context, keys in ((strange, stranger_to(server)), (strange, None), (known, server)):
            ear = open_socket(
                context, zmq.SUB, connect=sink.watch_address, limits=LIMITS, keys=keys
            )
            ear.setsockopt(zmq.SUBSCRIBE, b"")
            ears.append(ear)
        decoder = open_socket(
            strange, zmq.DEALER, connect=sink.pictures_address, limits=LIMITS,
            keys=stranger_to(server),
        )  # fmt: skip
        heard = False
        for _ in range(1000):
            sink._publish_statistics()
            if heard := bool(ears[2].poll(20)):
                break
        assert heard
        assert ears[2].recv_multipart()[0] == TOPIC_STATISTICS
        wait_until(lambda: sink.socket_counts()["keys_refused"] >= 2, "the strangers")
        wait_until(lambda: sink.socket_counts()["handshakes_failed"] >= 1, "the one without a key")
        sink._publish_statistics()
        assert not any(ear.poll(_NOTHING_MS) for ear in (*ears[:2], decoder))
        assert not decoder.poll(0, zmq.POLLOUT)
    finally:
        strange.destroy(linger=0)
        known.destroy(linger=0)
        sink.close()


def test_the_virtual_air(server: CurveKeys) -> None:
    sink = AirSink(ANY_PORT, 1e6, keys=server)
    source = gr_blocks.vector_source_c(np.ones(1000).tolist(), False)
    top = gr.top_block()
    top.connect(source, sink)
    top.start()
    contexts = [zmq.Context[zmq.Socket[bytes]]() for _ in range(3)]
    try:
        peers = [
            peer(context, zmq.DEALER, sink.address, keys)
            for context, keys in zip(contexts, (stranger_to(server), None, server), strict=True)
        ]
        for one in peers[:2]:
            one.send_multipart(pack_ready(MessageWriter(), Ready("", 0)))
        wait_until(lambda: sink.to_json()["keys_refused"] >= 1, "the stranger")
        wait_until(lambda: sink.to_json()["handshakes_failed"] >= 1, "the one without a key")
        assert sink.to_json()["receivers_joined"] == 0
        assert sink.samples_sent == 0
        peers[2].send_multipart(pack_ready(MessageWriter(), Ready("", 0)))
        assert peers[2].poll(_WAIT_MS)
        assert parse_chunk(peers[2].recv_multipart()).samples.size == 1000
        assert not any(one.poll(_NOTHING_MS) for one in peers[:2])
        assert sink.to_json()["receivers_joined"] == 1
    finally:
        top.stop()
        top.wait()
        for context in contexts:
            context.destroy(linger=0)
        sink.close()


def test_a_frame_is_unreadable_on_the_wire(server: CurveKeys) -> None:
    """What passes a tap between both sides holds neither the topic nor the question."""
    source = IndexSource(ANY_PORT, keys=server)
    host, port = source.address.removeprefix("tcp://").split(":")
    import threading

    heard = bytearray()
    with sockets.create_server(("127.0.0.1", 0)) as tap:

        def forward() -> None:
            outer, _ = tap.accept()
            with outer, sockets.create_connection((host, int(port))) as inner:

                def back() -> None:
                    while data := inner.recv(65_536):
                        outer.sendall(data)

                answers = threading.Thread(target=back, daemon=True)
                answers.start()
                while data := outer.recv(65_536):
                    heard.extend(data)
                    inner.sendall(data)
                inner.shutdown(sockets.SHUT_WR)
                answers.join(PATIENCE_S)

        thread = threading.Thread(target=forward, daemon=True)
        thread.start()
        frame = random_frame(1)
        address = f"tcp://127.0.0.1:{tap.getsockname()[1]}"
        with FrameSender(address, PATIENCE_S, keys=server) as sender:
            sender.send(frame)
            source.start()
            wait_until(lambda: source.frames_accepted == 1, "the frame")
        thread.join(PATIENCE_S)
    source.close()
    assert len(heard) > 2000
    assert frame.query is not None
    assert frame.query.encode() not in heard
    assert TOPIC_FRAME not in heard
    assert unpack_frame(MessageWriter().pack_frame(TOPIC_FRAME, frame), TOPIC_FRAME).frame_id == 1
