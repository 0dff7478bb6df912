"""Where the steps of an evaluation run: processes of this machine or a Ray cluster, by way of joblib."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import process_executor

BackendName = Literal["process", "ray"]


class BackendError(RuntimeError):
    """Ray is not installed, or its cluster cannot be reached."""


class Workers(Parallel):
    """joblib's pool, which says how far it is.

    Its generators would do so too, but Ray's backend has none.
    """

    report: Callable[[int], None] | None = None

    def print_progress(self) -> None:
        """Called by joblib after every task, perhaps in a thread of its own."""
        if self.report is not None:
            self.report(self.n_completed_tasks)

    def run(
        self, step: Callable[..., None], calls: list[tuple[Any, ...]], report: Callable[[int], None]
    ) -> None:
        """Call ``step`` with each of the arguments; ``report`` hears how many calls are done."""
        self.report = report
        self(delayed(_stay_loaded)(step, *call) for call in calls)


def _stay_loaded(step: Callable[..., None], *call: Any) -> None:
    """Call a step in a worker that is to keep the networks it loads.

    loky takes 300 MB more than after the first call for a leak and starts another worker, which would load
    them all again; it has no setting for it.
    """
    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
    step(*call)


@contextlib.contextmanager
def workers(backend: BackendName, jobs: int, ray_address: str | None = None) -> Iterator[Workers]:
    """Workers that stay, with what they have loaded, until the end.

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
        # One at a time: a step takes seconds, and no worker should sit on several while others are idle.
        yield stack.enter_context(Workers(batch_size=1))


@contextlib.contextmanager
def _ray(jobs: int, address: str | None) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise BackendError("Ray is not installed; pip install 'uoisc-air[ray]'") from None
    place: dict[str, Any] = {"address": address}
    if address is None:
        place = {
            "num_cpus": jobs,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            # As much of the cores as joblib's processes get; by default Ray's stand back for all others.
            "_system_config": {"worker_niceness": 0},
        }
    try:
        ray.init(logging_level=logging.WARNING, log_to_driver=False, **place)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BackendError(f"Ray at {address or 'this machine'}: {error}") from None
    try:
        register_ray()
        yield
    finally:
        ray.shutdown()
