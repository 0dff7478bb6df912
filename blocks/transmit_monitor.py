"""TransmitMonitor: counts what a radio says about the bursts that it was to send.

gr-uhd's sink hands on the device's messages on its port ``async_msgs``; on the screen they are the letters
U, L and S. gr-soapy has no such port.
"""

from __future__ import annotations

import logging

import pmt
from gnuradio import gr

from semantic.link_statistics import TransmitStatistics

_LOG = logging.getLogger(__name__)

PORT_MESSAGES = pmt.intern("async_msgs")
_EVENT_KEY = pmt.intern("event_code")
# gr-uhd's names for the events, and ours.
_COUNTERS = {
    "burst_ack": "acknowledged",
    "underflow": "underflows",
    "underflow_in_packet": "underflows",
    "time_error": "late",
    "seq_error": "sequence_errors",
    "seq_error_in_burst": "sequence_errors",
}


class TransmitMonitor(gr.basic_block):
    """Message port ``async_msgs`` (in): as gr-uhd's sink sends them; anything else is logged.

    Args:
        statistics: counts the events.
    """

    def __init__(self, statistics: TransmitStatistics) -> None:
        gr.basic_block.__init__(self, name="TransmitMonitor", in_sig=None, out_sig=None)
        self.statistics = statistics
        self.message_port_register_in(PORT_MESSAGES)
        self.set_msg_handler(PORT_MESSAGES, self._on_message)

    def counts(self) -> dict[str, int]:
        """Events so far, by name, under a name that Companion's Function Probe can call."""
        return self.statistics.to_json()

    def _on_message(self, message: pmt.pmt_base) -> None:
        for name in _events(message):
            counter = _COUNTERS.get(name)
            if counter is None:
                _LOG.warning("radio: unknown event %s", name)
                continue
            self.statistics.count(counter)
            if counter != "acknowledged":
                _LOG.warning("radio: %s", name)


def _events(message: pmt.pmt_base) -> list[str]:
    """Names of the events in a message: ``(uhd_async_msg . {event_code: (name name ...)})``."""
    if not (pmt.is_pair(message) and pmt.is_dict(pmt.cdr(message))):
        return [f"in a message that is no event: {message}"]
    events = pmt.dict_ref(pmt.cdr(message), _EVENT_KEY, pmt.PMT_NIL)
    return [pmt.symbol_to_string(pmt.nth(i, events)) for i in range(pmt.length(events))]
