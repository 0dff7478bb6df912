"""The fast path of an evaluation's link: the flowgraph's bits, eq. (8), and nothing random but the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pmt
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_messages import END_MESSAGE, BurstMessage, from_pdu
from blocks.burst_modulator import END_TAG
from blocks.burst_receiver import BurstReceiver
from blocks.frame_assembler import AssembledFrame
from blocks.index_sink import IndexSink
from blocks.modem import waveform as wf
from semantic.index_frame import FrameGeometry, IndexFrame, quantise_llrs
from semantic.systems import link
from semantic.systems.byte_frames import byte_geometry, bytes_to_frame
from tests.link_parts import ANY_PORT, PATIENCE_S, Collector, random_frame, same_indices

MCS = 4
# Six code blocks in five bursts: 48,000 bits at rate 1/2.
GEOMETRY = byte_geometry("test", 6000, 160)


def frame_of(seed: int = 1, geometry: FrameGeometry = GEOMETRY) -> IndexFrame:
    data = np.random.default_rng(seed).bytes(geometry.indices)
    return bytes_to_frame(data, geometry, frame_id=seed)


def through_gnuradio(
    samples: NDArray[np.complex64], geometry: FrameGeometry
) -> tuple[list[BurstMessage], list[AssembledFrame]]:
    """What the receive path of the flowgraph makes of samples: PDUs of bursts, and frames."""
    receiver = BurstReceiver(1e6, ring_samples=1 << 16, when_full="block")
    sink = IndexSink(ANY_PORT, ANY_PORT, [geometry], receiver.statistics, untaken_is_lost=False)
    ear = Collector()
    end = gr.tag_t()
    end.offset, end.key, end.value = samples.size, pmt.intern(END_TAG), pmt.PMT_T
    # The mark needs a sample to stand on, and the source must not end before the messages are through.
    padded = np.concatenate([samples, np.zeros(5000, np.complex64)])
    source = gr_blocks.vector_source_c(padded.tolist(), True, 1, [end])
    top = gr.top_block()
    top.connect(source, receiver)
    top.msg_connect(receiver, "bursts", sink, "bursts")
    top.msg_connect(receiver, "bursts", ear, "in")
    top.start(8192)
    try:
        messages = []
        while not pmt.equal(message := ear.get(), END_MESSAGE):
            messages.append(from_pdu(message))
        assert sink.finished.wait(PATIENCE_S)
        return messages, list(sink.pictures)
    finally:
        top.stop()
        top.wait()
        sink.close()


@pytest.mark.parametrize(
    ("channel", "snr_db", "seed"),
    [("awgn", 20.0, 1), ("awgn", 3.8, 2), ("rayleigh", 8.0, 3), ("rayleigh", 8.0, 5)],
)
def test_same_samples_same_blocks_as_the_flowgraph(
    channel: link.FadingName, snr_db: float, seed: int
) -> None:
    frame = frame_of()
    sent = link.transmit(frame, mcs=MCS, snr_db=snr_db, channel=channel, seed=[seed])
    ours = [one for one in link.receive(sent.samples) if one.burst is not None]
    theirs, their_frames = through_gnuradio(sent.samples, GEOMETRY)
    assert [one.header for one in ours] == [one.header for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.burst is not None
        blocks = one.burst.blocks
        assert [block.ok for block in blocks] == other.ok.tolist()
        assert np.array_equal([block.bits for block in blocks], other.bits)
        assert np.array_equal([quantise_llrs(block.llrs) for block in blocks], other.llrs)
    all_ok = np.concatenate([one.ok for one in theirs])
    if snr_db < 20:  # the case is one where blocks are lost, and not all of them
        assert 0 < all_ok.sum() < sent.headers[0].frame_blocks
    (mine,), (theirs_whole,) = link.assemble(ours, GEOMETRY), their_frames
    assert (mine.blocks_ok, mine.complete) == (theirs_whole.blocks_ok, theirs_whole.complete)
    assert mine.frame is not None
    assert theirs_whole.frame is not None
    assert same_indices(mine.frame, theirs_whole.frame)
    if mine.frame.erased is not None:
        assert theirs_whole.frame.erased is not None
        assert np.array_equal(mine.frame.erased[0], theirs_whole.frame.erased[0])
        assert np.array_equal(mine.frame.bit_llrs, theirs_whole.frame.bit_llrs)


def test_a_frame_arrives_whole_and_every_symbol_is_counted() -> None:
    frame = random_frame(7)
    result = link.send(frame, mcs=MCS, snr_db=12.0, channel="awgn", seed=[1])
    assert result.received.complete
    assert result.received.frame is not None
    assert same_indices(result.received.frame, frame)
    bits = frame.geometry.payload_bits
    assert result.payload_symbols == pytest.approx(bits / 1.5)
    # Blocks of bits + CRC at rate 1/2; ramps, preamble, header; 8 pilots per 128 symbols begun.
    n = math.ceil(bits / 8424)
    assert (result.code_blocks, result.code_blocks_ok) == (n, n)
    assert (result.bursts, result.bursts_lost) == (1, 0)
    body = 512 + n * math.ceil((math.ceil(bits / n) + 24) / 1.5)
    assert result.symbols == 8 + 256 + body + 8 * math.ceil(body / 128) + 8


def test_nothing_arrives_far_below_the_waterfall() -> None:
    result = link.send(frame_of(), mcs=9, snr_db=0.0, channel="awgn", seed=[1])
    assert result.received.frame is None
    assert not result.received.complete
    assert result.code_blocks_ok == 0
    assert result.bursts_lost == result.bursts > 1


def test_the_air_is_a_matter_of_the_seed_alone() -> None:
    def samples(seed: Sequence[int], content: int, snr_db: float) -> NDArray[np.complex64]:
        return link.transmit(
            frame_of(content), mcs=MCS, snr_db=snr_db, channel="rayleigh", seed=seed
        ).samples

    once = samples([3, 4], 1, 6.0)
    assert np.array_equal(once, samples([3, 4], 1, 6.0))
    assert not np.array_equal(once, samples([3, 5], 1, 6.0))
    # The same air for another system: what differs is the signal, whose frame number and bits differ, not
    # the noise in the silence at the end, nor that noise 6 dB lower.
    quiet = slice(-400, None)
    assert np.array_equal(once[quiet], samples([3, 4], 2, 6.0)[quiet])
    weaker = samples([3, 4], 1, 12.0)[quiet]
    assert np.allclose(once[quiet], weaker * 10 ** (6 / 20), rtol=1e-4, atol=1e-6)


def test_every_burst_has_its_own_gain_of_mean_power_one() -> None:
    """Eq. (8): abs(h)^2 is exponential with mean 1, one h from a burst's first symbol to its last."""
    levels = []
    for seed in range(60):
        frame = frame_of(seed)
        sent = link.transmit(frame, mcs=MCS, snr_db=60.0, channel="rayleigh", seed=[seed])
        levels.append([one.measurement.level for one in link.receive(sent.samples)])
    assert {len(one) for one in levels} == {len(sent.headers)}
    power = np.array(levels) ** 2
    reference = link.transmit(frame_of(), mcs=MCS, snr_db=60.0, channel="awgn", seed=[0])
    power /= np.mean([one.measurement.level**2 for one in link.receive(reference.samples)])
    # Of an exponential law the mean is 1, and exp(-1) lies above it; 3 standard deviations of the count.
    count = power.size
    assert power.mean() == pytest.approx(1, abs=3 / math.sqrt(count))
    share = math.exp(-1)
    assert (power > 1).mean() == pytest.approx(
        share, abs=3 * math.sqrt(share * (1 - share) / count)
    )
    # Independent from burst to burst.
    pairs = np.corrcoef(power[:, 0], power[:, 1])[0, 1]
    assert abs(pairs) < 3 / math.sqrt(len(power))


def test_a_code_rate_that_there_is_not() -> None:
    with pytest.raises(wf.WaveformError, match="mcs"):
        link.send(frame_of(), mcs=10, snr_db=10.0, channel="awgn", seed=[0])
