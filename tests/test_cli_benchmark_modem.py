"""``uoisc benchmark modem`` with next to no time: every figure is there and says what it was measured on."""

from __future__ import annotations

import json
import os

from tests.conftest import RunCommand

SPEEDS = {
    "transmitter",
    "receiver, noise alone",
    "receiver",
    "receiver, not decoding",
    "flowgraph",
    "flowgraph, not decoding",
    "stock chain",
}


def test_one_json_object_with_every_figure(uoisc: RunCommand) -> None:
    done = uoisc("benchmark", "modem", "--seconds", "0", "--bursts", "2", "--seed", "3", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["arguments"] == {"seconds": 0.0, "seed": 3, "bursts": 2}
    assert report["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert (report["mcs"], report["code_rate"], report["code_block_bits"]) == (4, 0.5, 8448)
    assert {row["name"] for row in report["speed"]} == SPEEDS
    for row in report["speed"]:
        spread = row["msym_per_s"]
        assert 0 < spread["minimum"] <= spread["median"] <= spread["maximum"]
        assert spread["runs"] >= 3
        # As many runs as the time is long: the total fits between the fastest and the slowest.
        runs = row["symbols"] / 1e6 * spread["runs"]
        assert runs / spread["maximum"] <= spread["seconds"] * (1 + 1e-9)
        assert spread["seconds"] <= runs / spread["minimum"] * (1 + 1e-9)
        assert row["mcs"] == 4
        assert row["over_stock_chain"] > 0
        received = "receiver" in row["name"] or "flowgraph" in row["name"]
        if received and row["snr_db"] is not None:
            # Two bursts of 18,768 symbols, 64 symbols behind each, the transients of the pulses, silence.
            assert row["symbols"] == 2 * (18_768 + 16 + 64) + 1024
            assert row["code_blocks"] == 6
            decoding = "not decoding" not in row["name"]
            assert row["max_iterations"] == (50 if decoding else 0)
            assert (row["iterations"] > 0) == decoding
            if decoding and row["snr_db"] == 12:
                assert row["code_block_errors"] == 0
    flowgraphs = [row for row in report["speed"] if row["name"] == "flowgraph"]
    assert {row["cores"] for row in flowgraphs} <= {1, 2}
    assert {row["snr_db"] for row in flowgraphs} == {3.95, 12.0}

    assert report["latency_symbol_rate_hz"] == 1e6
    kinds = [(row["burst_symbols"], row["code_blocks"]) for row in report["latency"]]
    assert kinds == [(1547, 1), (6800, 1), (18_768, 3), (18_768, 3)]
    for row in report["latency"]:
        assert row["bursts"] >= 1
        assert 0 < row["p50_ms"] <= row["p95_ms"]


def test_table(uoisc: RunCommand) -> None:
    done = uoisc("benchmark", "modem", "--seconds", "0", "--bursts", "1")
    assert done.returncode == 0, done.stderr
    for name in SPEEDS:
        assert name in done.stdout
    assert "Last sample to code blocks" in done.stdout
