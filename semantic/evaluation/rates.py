"""Which code rate a policy takes at an Es/N0.

``fixed`` is the paper's rate 1/2 everywhere; ``lowest`` one rate for a whole sweep, the highest that holds
at its lowest Es/N0; ``table`` the highest that holds at each Es/N0, as a link does that knows its channel. A
rate holds where its block error rate in white noise is 1e-2 or less; where none does, the lowest is taken.

Under Rayleigh fading Es/N0 is a mean, and a burst meets h of its own: ``table`` keeps a margin there.
"""

from __future__ import annotations

from typing import Literal

PolicyName = Literal["fixed", "lowest", "table"]
ChannelName = Literal["awgn", "rayleigh", "none"]

# Rate 1/2, the paper's.
FIXED_MCS = 4

# Es/N0 in dB at which code rates 1/5 to 8/9 (mcs 0 to 9) have block error rate 1e-2 in white noise, the whole
# receiver, missed bursts counted: curve A of docs/modem-results.md, which this prints again:
#   uoisc benchmark sensitivity --from tests/data/reference_curves/ideal.json \
#       --from tests/data/reference_curves/full.json
HOLDS_FROM_DB = (-1.61, -0.40, 1.12, 2.32, 3.98, 5.52, 6.57, 7.97, 9.47, 10.72)


def highest_holding_mcs(snr_db: float) -> int:
    """The highest code rate that holds in white noise; mcs 0 where none does."""
    holding = [mcs for mcs, needed_db in enumerate(HOLDS_FROM_DB) if needed_db <= snr_db]
    return max(holding, default=0)


def choose_mcs(
    policy: PolicyName,
    snr_db: float,
    *,
    channel: ChannelName,
    lowest_snr_db: float,
    fading_margin_db: float,
) -> int:
    """Index of the code rate.

    Args:
        policy: see above.
        snr_db: Es/N0 of this point.
        channel: ``rayleigh`` takes the margin off.
        lowest_snr_db: lowest Es/N0 of the sweep.
        fading_margin_db: what ``table`` keeps in hand under fading.
    """
    if policy == "fixed":
        return FIXED_MCS
    if policy == "lowest":
        return highest_holding_mcs(lowest_snr_db)
    return highest_holding_mcs(snr_db - (fading_margin_db if channel == "rayleigh" else 0))
