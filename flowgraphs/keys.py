"""The CURVE keys that a profile names. No GNU Radio: a machine with a codec and no radio needs them too."""

from __future__ import annotations

from blocks.zmq_security import CurveKeys, load_keys
from sdr_config.schema import Profile


def profile_keys(profile: Profile) -> CurveKeys | None:
    """The keys of a profile's sockets, None where it has none.

    Raises:
        KeyFileError: a key that cannot be read.
    """
    keys = profile.zmq.keys
    return None if keys is None else load_keys(keys.own, keys.server, keys.allowed)
