"""Lets ``import torchvision`` succeed beside a torch build its compiled operators do not fit.

open_clip and timm import torchvision for image transforms that this project never calls. With a
CPU-only torch and a torchvision wheel built for another torch, that import fails with "operator
torchvision::nms does not exist", because torchvision registers shape functions for two operators
that its compiled library should have declared. Declaring the two schemas first is enough: nothing
here ever runs them, and calling one still fails loudly, for no kernel is registered.
"""

from __future__ import annotations

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")


def declare_missing_operators() -> list[str]:
    """Import torchvision, declaring the schemas it lacks if, and only if, it cannot be imported.

    Returns:
        Names of the operators that had to be declared; empty on a matching torchvision.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return []
    declared = []
    for name in _OPERATORS:
        if not _is_declared(name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)
            declared.append(f"torchvision::{name}")
    import torchvision  # noqa: F401

    return declared


def _is_declared(name: str) -> bool:
    """True when the operator's schema is known to torch already."""
    schema = torch._C._dispatch_find_schema_or_throw
    try:
        schema(f"torchvision::{name}", "")
    except RuntimeError:
        return False
    return True
