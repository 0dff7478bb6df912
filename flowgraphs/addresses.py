"""Errors about addresses say which key of the profile to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from blocks.zmq_messages import AddressError


@contextmanager
def named_addresses(keys: Mapping[str, str]) -> Iterator[None]:
    """Around opening sockets that bind: their errors name the key.

    Args:
        keys: addresses by the profile's keys.

    Raises:
        AddressError: as raised inside, with the key and what to do.
    """
    try:
        yield
    except AddressError as error:
        text = str(error)
        key = next((key for key, address in keys.items() if f" {address}:" in text), None)
        if key is None:
            raise
        raise AddressError(
            f"{key}: {text}; where another program has it, give this one another address "
            f"(--set {key}=tcp://127.0.0.1:PORT), and whoever connects to it the same"
        ) from None
