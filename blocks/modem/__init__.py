"""The waveform as plain NumPy and Numba functions. No GNU Radio, no torch."""
