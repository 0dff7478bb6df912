"""Recordings of what a radio heard, as SigMF: writing, reading, checking, and a few small ones to try."""
