"""The program in docs/zmq.md runs as it stands there, and the page names what the code has."""

from __future__ import annotations

import re
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pmt
import pytest
from gnuradio import gr

from blocks.air_messages import CHUNK_SAMPLES, MAX_CHUNK_SAMPLES
from blocks.air_sink import MAX_RECEIVERS, WINDOW_CHUNKS
from blocks.index_sink import IndexSink
from blocks.index_source import IndexSource, pdu_to_bits
from blocks.zmq_messages import TOPIC_PICTURE, Refusal
from blocks.zmq_security import load_keys, write_key_pair
from semantic.link_statistics import LinkStatistics
from tests.link_parts import ANY_PORT, GEOMETRY, PATIENCE_S, Collector, post, random_frame

PAGE = (Path(__file__).resolve().parent.parent / "docs/zmq.md").read_text()


def code(name: str) -> str:
    found = re.search(
        rf"<!-- {name}: begin -->\n```python\n(.*?)```\n<!-- {name}: end -->", PAGE, re.DOTALL
    )
    assert found, f"no code between the marks {name}"
    return found[1]


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for one in started:
        one.kill()
        one.wait()
        assert one.stdout is not None
        one.stdout.close()


def run(program: str, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, address], stdout=subprocess.PIPE, text=True
    )


def publish_until_heard(sink: IndexSink, process: subprocess.Popen[str]) -> list[str]:
    """Publish a picture and totals until the program has printed both."""
    assert process.stdout is not None
    lines: list[str] = []
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        for _ in range(int(10 * PATIENCE_S)):
            sink._pub.send_multipart(sink._pub_writer.pack_frame(TOPIC_PICTURE, random_frame(7)))
            sink._publish_statistics()
            if selector.select(0.1):
                lines.append(process.stdout.readline())
            if {line.split()[0] for line in lines} == {"picture", "statistics"}:
                break
    return lines


def test_the_client_is_plain_pyzmq_and_short() -> None:
    program = code("client")
    assert set(re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE)) == {
        "json",
        "sys",
        "zmq",
    }
    assert len(re.findall(r"^(?!import|$).", program, re.MULTILINE)) <= 10


def test_the_client_runs(programs: list[subprocess.Popen[str]]) -> None:
    sink = IndexSink(ANY_PORT, ANY_PORT, [GEOMETRY], LinkStatistics())
    try:
        programs.append(run(code("client"), sink.watch_address))
        lines = publish_until_heard(sink, programs[0])
    finally:
        sink.close()
    payload = len(random_frame(7).to_message()[1])
    assert f"picture 7 None {payload}\n" in lines
    assert "statistics None 0 0\n" in lines


def test_the_client_with_keys_runs(
    programs: list[subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uoisc", "rx"):
        write_key_pair(tmp_path / "keys", name)
    keys = load_keys(
        str(tmp_path / "keys/rx.key_secret"), allowed=[str(tmp_path / "keys/uoisc.key")]
    )
    monkeypatch.chdir(tmp_path)
    sink = IndexSink(ANY_PORT, ANY_PORT, [GEOMETRY], LinkStatistics(), keys=keys)
    program = code("client").replace("socket.connect(", f"{code('curve')}socket.connect(")
    try:
        programs.append(run(program, sink.watch_address))
        heard = publish_until_heard(sink, programs[0])
    finally:
        sink.close()
    assert {line.split()[0] for line in heard} == {"picture", "statistics"}


def test_the_page_says_what_the_code_does() -> None:
    for refusal in Refusal:
        assert f"`{refusal.value}`" in PAGE
    assert f"{WINDOW_CHUNKS} chunks of at most {CHUNK_SAMPLES:,} samples" in PAGE
    assert f"1 to {MAX_CHUNK_SAMPLES:,} of them" in PAGE
    assert f"| receivers of one virtual air | {MAX_RECEIVERS} |" in PAGE


def test_the_sender_runs(tmp_path: Path) -> None:
    """It sends a frame and prints what became of it."""
    file = tmp_path / "one.uoisc"
    file.write_bytes(random_frame(6).to_bytes())
    source = IndexSource(ANY_PORT)
    collector, top = Collector(), gr.top_block()
    top.msg_connect(source, "frames", collector, "in")
    top.start()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code("sender"), str(file), source.address],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert pdu_to_bits(collector.get())[0] == 6
        post(source, "sent", pmt.PMT_T)
        assert process.communicate(timeout=60)[0] == "sent\n"
    finally:
        top.stop()
        top.wait()
        source.close()
