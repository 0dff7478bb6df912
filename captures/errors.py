"""The one error that everything about recordings raises."""

from __future__ import annotations


class CaptureError(ValueError):
    """A recording that cannot be written, read or used; one line that names file, key and reason."""
