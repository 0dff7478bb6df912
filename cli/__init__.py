"""The ``uoisc`` command: argument parsing, progress and reports; the work is done elsewhere."""

import semantic  # noqa: F401 - before torch: it sets how torch's threads wait
