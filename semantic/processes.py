"""The processes that train one codec together, one per device, through accelerate.

Every process draws the same random numbers for the whole batch and works on its own share of it: picture
``index``, ``index + count``, ``index + 2 count``, ... Gradients are averaged, and what counts over a
batch (codebooks, the spread of features) is taken over the whole batch, so that several processes train
what one process would have trained, up to rounding.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from semantic.codec_config import Precision

DEVICES = ("auto", "cpu", "cuda", "mps")
LOOPBACK = ("127.0.0.1", "localhost")
# Instructions with which a CPU computes in bfloat16 (x86, ARM).
CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
# Steps in a row that fp16 may leave out while it looks for a scale of the gradients; it starts at
# 2**16 and halves it each time.
MAX_SKIPPED_STEPS = 20

Share = TypeVar("Share", Tensor, np.ndarray, list)


class DeviceError(ValueError):
    """A device that is not there, or cannot compute as asked."""


def choose_device(name: str) -> str:
    """``"cpu"``, ``"cuda"`` or ``"mps"``; "auto" means CUDA where there is one, else the CPU.

    Raises:
        DeviceError: an unknown name, or a device that is not there.
    """
    if name not in DEVICES:
        raise DeviceError(f"device {name!r}: expected one of {', '.join(DEVICES)}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there.get(name, True):
        raise DeviceError(f"device {name!r} is not there; on this machine: {_present(there)}")
    return name


def has_fast_bf16(device: str) -> bool:
    """Whether a device of :func:`choose_device` computes in bfloat16.

    A CPU without such instructions emulates them: convolutions then take several times as long as in float32.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return device == "cpu" and any(has.get(name, False) for name in CPU_BF16)


def _present(there: Mapping[str, bool]) -> str:
    return ", ".join(["cpu", *(name for name, present in there.items() if present)])


class Processes:
    """This process and its fellows; a process that was started alone has none.

    Fellows come from ``uoisc train --processes``, ``torchrun`` or ``accelerate launch``, which set ``RANK``,
    ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT``.

    Args:
        device: one of :data:`DEVICES`.
        precision: of the model's forward and backward pass.
        idle_parameters: whether some trained parameters may have no part in a step, which takes time
            to find out in every step.

    Raises:
        DeviceError: a device that is not there, or fp16 on one that has no fast arithmetic for it.
    """

    def __init__(
        self,
        device: str = "cpu",
        precision: Precision = "fp32",
        idle_parameters: bool = False,
    ) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState

        chosen = choose_device(device)
        if precision == "fp16" and chosen != "cuda":
            raise DeviceError(f"precision fp16 needs device cuda, this is {chosen}; bf16 does not")
        if chosen == "cuda":
            _use_repeatable_kernels()
        _join_on_loopback(chosen)
        # accelerate remembers the first settings of a process, and a second run may want others.
        AcceleratorState._reset_state(reset_partial_state=True)
        self._accelerator = Accelerator(
            cpu=chosen == "cpu",
            mixed_precision="no" if precision == "fp32" else precision,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=idle_parameters)],
        )
        self.device: torch.device = self._accelerator.device
        self.precision = precision
        self.count: int = self._accelerator.num_processes
        self.index: int = self._accelerator.process_index

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes files and reports."""
        return self.index == 0

    def prepare(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The model as training calls it (in ``precision``, gradients averaged), and its optimiser."""
        # Said of kernels with one input channel, whose gradients torch lays out in two ways.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return (
            self._accelerator.prepare_model(model),
            self._accelerator.prepare_optimizer(optimizer),
        )

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar, averaged over the processes."""
        self._accelerator.backward(loss)

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        """Limit the gradient's norm; the norm it had."""
        norm: Tensor = self._accelerator.clip_grad_norm_(list(parameters), limit)
        return norm

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What scales the gradients in fp16; None in other precisions."""
        found: torch.amp.GradScaler | None = self._accelerator.scaler
        return found

    def own(self, batch: Share) -> Share:
        """This process's share of something with one entry per picture of the whole batch."""
        return batch[self.index :: self.count]

    def gather(self, share: Tensor) -> Tensor:
        """Shares of all processes, ``[b, ...]`` each -> the whole batch in its order, ``[B, ...]``."""
        if self.count == 1:
            return share
        whole: Tensor = self._accelerator.gather(share.contiguous())
        return whole.unflatten(0, (self.count, -1)).transpose(0, 1).flatten(0, 1).contiguous()

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, the same everywhere."""
        if self.count == 1:
            return values
        found: Tensor = self._accelerator.reduce(values, "mean")
        return found

    def mean_record(self, record: Mapping[str, float]) -> dict[str, float]:
        """Mean over the processes of every entry; all have the same names."""
        if self.count == 1:
            return dict(record)
        values = torch.tensor(list(record.values()), dtype=torch.float32, device=self.device)
        return dict(zip(record, self.mean(values).tolist(), strict=True))

    def average_gradients(self, module: nn.Module) -> None:
        """Average the gradients of a module that did not go through :meth:`prepare`."""
        if self.count == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def share(self, module: nn.Module) -> None:
        """Give every process the main one's parameters and buffers."""
        if self.count > 1:
            for value in module.state_dict().values():
                torch.distributed.broadcast(value, src=0)

    def wait(self) -> None:
        """Until all processes have come here."""
        self._accelerator.wait_for_everyone()

    def end(self) -> None:
        """Part from the others."""
        if self.count > 1:
            self._accelerator.end_training()


def _use_repeatable_kernels() -> None:
    """The same sums in the same order on every run, where CUDA has such kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def _join_on_loopback(device: str) -> None:
    """Where all processes are on this machine, let them meet at 127.0.0.1 and nowhere else.

    torch would listen on every address of the machine. A launcher (torchrun, ``accelerate launch``) that
    has opened the meeting point itself is left to it.
    """
    environment: Mapping[str, Any] = os.environ
    count = int(environment.get("WORLD_SIZE", 1))
    if count == 1 or environment.get("MASTER_ADDR") not in LOOPBACK:
        return
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", _loopback_interface())
    launched = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if launched or torch.distributed.is_initialized():
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    rank, port = int(environment["RANK"]), int(environment["MASTER_PORT"])
    store = TCPStore(
        "127.0.0.1",
        port,
        count,
        rank == 0,
        wait_for_workers=False,
        master_listen_fd=_listen(port) if rank == 0 else None,
    )
    if device == "cuda":
        gpus, local = torch.cuda.device_count(), int(environment["LOCAL_RANK"])
        if local >= gpus:
            raise DeviceError(
                f"process {local + 1} of {count} has no GPU of its own: there are {gpus}"
            )
        torch.cuda.set_device(local)
    torch.distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo", store=store, rank=rank, world_size=count
    )


def _loopback_interface() -> str:
    names = [name for _, name in socket.if_nameindex()]
    return next(name for name in names if name in ("lo", "lo0"))


def _listen(port: int) -> int:
    """File descriptor of a socket that listens at 127.0.0.1 alone."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener.detach()
