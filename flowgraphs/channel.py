"""The simulated air between transmitter and receiver, made of stock C++ blocks (and the fading)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from gnuradio import analog, filter, gr
from gnuradio import blocks as gr_blocks

from blocks.block_fading import BlockFading, Fading
from sdr_config.schema import Profile

_ROTATOR_SAMPLES = 2048


def noise_variance(snr_db: float, amplitude: float, samples_per_symbol: int) -> float:
    """Variance of one complex noise sample for a wanted Es/N0.

    A burst of amplitude A has mean power A^2, a symbol thus the energy Es = A^2 samples_per_symbol;
    white noise of variance s^2 per sample has N0 = s^2.
    """
    return float(amplitude**2 * samples_per_symbol / 10 ** (snr_db / 10))


class Channel(gr.hier_block2):
    """Fading, multipath, clock and carrier offset, noise; in this order.

    Args:
        sample_rate_hz: of both sides.
        samples_per_symbol: on the air.
        amplitude: of the transmitted bursts.
        snr_db: Es/N0 of an unfaded burst, or None for no noise.
        cfo_hz: carrier of the transmitter minus that of the receiver.
        sro_ppm: clock of the receiver minus that of the transmitter, in parts per million.
        fading: law of the gain, constant per burst.
        rician_k_db: only for Rician fading.
        taps: complex multipath taps, one air sample apart; the first is normally 1.
        seed: of noise and fading.
    """

    def __init__(
        self,
        *,
        sample_rate_hz: float,
        samples_per_symbol: int,
        amplitude: float,
        snr_db: float | None,
        cfo_hz: float = 0.0,
        sro_ppm: float = 0.0,
        fading: Fading = "none",
        rician_k_db: float = 0.0,
        taps: Sequence[complex] = (1.0,),
        seed: int = 0,
    ) -> None:
        signature = gr.io_signature(1, 1, gr.sizeof_gr_complex)
        gr.hier_block2.__init__(self, "Channel", signature, signature)
        # Independent streams for fading and noise from one seed.
        fading_seed, noise_seed = np.random.SeedSequence(seed).generate_state(2)
        chain: list[gr.basic_block] = []
        if fading != "none":
            chain.append(BlockFading(fading, rician_k_db, int(fading_seed)))
        if list(taps) != [1.0]:
            chain.append(filter.fir_filter_ccc(1, [complex(tap) for tap in taps]))
        if sro_ppm:
            # The receiver's clock runs fast: it takes more samples per symbol, smaller steps in time.
            chain.append(filter.mmse_resampler_cc(0.0, 1 / (1 + sro_ppm * 1e-6)))
        if cfo_hz:
            rotator = gr_blocks.rotator_cc(2 * np.pi * cfo_hz / sample_rate_hz)
            # Its rounding depends on how many samples a call has: always the same number.
            rotator.set_output_multiple(_ROTATOR_SAMPLES)
            rotator.set_max_noutput_items(_ROTATOR_SAMPLES)
            chain.append(rotator)
        if snr_db is not None:
            adder = gr_blocks.add_cc()
            sigma = np.sqrt(noise_variance(snr_db, amplitude, samples_per_symbol))
            # noise_source_c draws every sample anew; channel_model repeats 16,384 stored ones.
            noise = analog.noise_source_c(
                analog.GR_GAUSSIAN, float(sigma), int(noise_seed) & 0x7FFF_FFFF | 1
            )
            self.connect(noise, (adder, 1))
            chain.append(adder)
        if not chain:
            chain.append(gr_blocks.copy(gr.sizeof_gr_complex))
        # The flowgraph keeps the C++ side of a block alive, not the Python side of a Python block.
        self._chain = chain
        self.connect(self, *chain, self)

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """The channel that a profile describes; its section ``channel`` must be there."""
        waveform, channel = profile.waveform, profile.channel
        if channel is None:
            raise ValueError(f"profile {profile.name} has no section channel")
        return cls(
            sample_rate_hz=waveform.sample_rate_hz,
            samples_per_symbol=waveform.samples_per_symbol,
            amplitude=waveform.amplitude,
            snr_db=channel.snr_db,
            cfo_hz=channel.cfo_hz,
            sro_ppm=channel.sro_ppm,
            fading=channel.fading,
            rician_k_db=channel.rician_k_db or 0.0,
            taps=channel.complex_taps,
            seed=channel.seed,
        )
