"""The codec: a photo and a question in, vector-quantised indices out, and a picture back from them.

Importing this package loads nothing heavy: a machine that only has a radio uses
:mod:`semantic.index_frame` and :mod:`semantic.link_statistics`, which need NumPy alone.
"""
