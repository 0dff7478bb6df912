"""The ``uoisc`` command: argument parsing, progress and reports; the work is done elsewhere."""
