"""The codec: a photo and a question in, vector-quantised indices out, and a picture back from them.

Importing this package loads nothing heavy: a machine that only has a radio uses
:mod:`semantic.index_frame` and :mod:`semantic.link_statistics`, which need NumPy alone.
"""

import os

# Torch's OpenMP reads this once, when torch is loaded. By default its threads spin while they wait for each
# other, which takes ten times as long as soon as another process wants one of the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
