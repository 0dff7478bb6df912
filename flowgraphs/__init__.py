"""Top blocks: transmitter, receiver and loopback, and the radio front ends they use."""
