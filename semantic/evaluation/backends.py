"""Where the steps of an evaluation run: processes of this machine or a Ray cluster, by way of joblib."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from joblib import Parallel, delayed, parallel_config

BackendName = Literal["process", "ray"]


class BackendError(RuntimeError):
    """Ray is not installed, or its cluster cannot be reached."""


@contextlib.contextmanager
def workers(backend: BackendName, jobs: int, ray_address: str | None = None) -> Iterator[Parallel]:
    """A pool that yields results as they are finished, in any order.

    Args:
        backend: ``process``, or ``ray``.
        jobs: processes; 1 of backend ``process`` is this one.
        ray_address: of a running cluster, whose machines must see the same files and have this package; None
            starts one on this machine for as long as it takes.

    Raises:
        BackendError: Ray is not installed or not reached.
    """
    with contextlib.ExitStack() as stack:
        if backend == "ray":
            stack.enter_context(_ray(jobs, ray_address))
            stack.enter_context(parallel_config("ray", n_jobs=jobs))
        else:
            # No threads inside: as many processes as cores are enough.
            stack.enter_context(parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1))
        # One at a time: a step takes seconds, and the slow ones should not queue behind each other.
        pool = Parallel(batch_size=1, pre_dispatch="2*n_jobs", return_as="generator_unordered")
        yield stack.enter_context(pool)


def run_all(pool: Parallel, function: Any, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Results of a function as they come."""
    yield from pool(delayed(function)(*one) for one in arguments)


@contextlib.contextmanager
def _ray(jobs: int, address: str | None) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise BackendError("Ray is not installed; pip install 'uoisc-air[ray]'") from None
    place: dict[str, Any] = (
        {"address": address}
        if address
        else {
            "num_cpus": jobs,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    )
    try:
        ray.init(logging_level=logging.WARNING, log_to_driver=False, **place)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BackendError(f"Ray at {address or 'this machine'}: {error}") from None
    try:
        register_ray()
        yield
    finally:
        ray.shutdown()
