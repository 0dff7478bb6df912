"""Recordings of what a radio heard, as SigMF. Empty so far: recording and replay come with the radios."""
