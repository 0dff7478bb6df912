"""What no code of this length can beat: the normal approximation for bit-interleaved Gray 8-PSK.

Polyanskiy, Poor, Verdu 2010: with n symbols, K bits and an information density of mean C and variance V
bits per symbol, the block error rate is about ``Q((n C - K + log2(n) / 2) / sqrt(n V))``. The density is
that of the bit-interleaved channel, whose demapper looks at one bit at a time: that is what our receiver
does, so the distance to this curve is the loss of the code and its decoder alone.
"""

from __future__ import annotations

import math

from blocks.modem.psk import BITS_PER_SYMBOL, bicm_density_8psk


def normal_approximation_per(info_bits: int, coded_bits: int, snr_db: float) -> float:
    """Block error rate of the best code with K = ``info_bits``, E = ``coded_bits`` at Es/N0 = ``snr_db``."""
    symbols = coded_bits / BITS_PER_SYMBOL
    mean, variance = bicm_density_8psk(snr_db)
    margin = symbols * mean - info_bits + 0.5 * math.log2(symbols)
    # Where nothing is lost nothing varies: the code works or it does not.
    spread = math.sqrt(2 * symbols * max(variance, 1e-300))
    return 0.5 * math.erfc(margin / spread)


def normal_approximation_snr_db(info_bits: int, coded_bits: int, per: float = 1e-2) -> float:
    """Es/N0 in dB at which the best code has block error rate ``per``, to 0.001 dB.

    Raises ``ValueError`` where that lies outside -15 .. 30 dB.
    """
    low, high = -15.0, 30.0
    if not (
        normal_approximation_per(info_bits, coded_bits, low)
        > per
        > normal_approximation_per(info_bits, coded_bits, high)
    ):
        raise ValueError(f"no Es/N0 in {low}..{high} dB gives a block error rate of {per}")
    while high - low > 1e-3:
        middle = (low + high) / 2
        if normal_approximation_per(info_bits, coded_bits, middle) > per:
            low = middle
        else:
            high = middle
    return (low + high) / 2
