"""From exceptions to one line on standard error and an exit code.

What a user can cause (a wrong path, a wrong value, a port in use) is raised as a named exception where
it is found; here, and only here, it becomes ``error: ...``. Anything else is a fault of the program and
says so.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback

# By name, so that saying "unknown profile" does not first load torch.
USER_ERRORS = frozenset(
    {
        "benchmarks.latency.LatencyError",
        "benchmarks.modem.BenchmarkError",
        "benchmarks.radio_processes.RadioBenchmarkError",
        "blocks.frame_sender.NobodyTakesError",
        "blocks.modem.ldpc_code.LdpcError",
        "blocks.modem.ldpc_vectors.VectorFileError",
        "blocks.modem.waveform.WaveformError",
        "blocks.zmq_messages.AddressError",
        "blocks.zmq_security.KeyFileError",
        "captures.errors.CaptureError",
        "cli.exchange.ExchangeError",
        "cli.output.OutputError",
        "cli.plot.ResultsError",
        "flowgraphs.radio_settings.RadioError",
        "sdr_config.load.ConfigError",
        "semantic.asked_photos.PhotosError",
        "semantic.backbone.WeightsError",
        "semantic.codec_config.ConfigError",
        "semantic.dataset.DatasetError",
        "semantic.evaluation.backends.BackendError",
        "semantic.evaluation.plan.PlanError",
        "semantic.evaluation.table.TableError",
        "semantic.frame_geometry.IndexFrameError",
        "semantic.judges.answers.JudgeError",
        "semantic.perceptual.MeasureError",
        "semantic.pictures.PictureError",
        "semantic.processes.DeviceError",
        "semantic.systems.system.UnavailableError",
        "semantic.systems.system.UnreachableError",
        "semantic.training_state.NotFiniteError",
        "semantic.training_state.TrainingError",
    }
)

_STREAM_FAILS = (errno.ENOSPC, errno.EPIPE, errno.EIO)

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

TRACEBACK_VARIABLE = "UOISC_TRACEBACK"


def report_error(error: BaseException) -> int:
    """Print one line about an exception on standard error (and the traceback where asked for).

    Returns:
        The exit code.
    """
    if os.environ.get(TRACEBACK_VARIABLE, "0") not in ("", "0"):
        traceback.print_exception(error, file=sys.stderr)
    text, code = _text_and_code(error)
    sys.stderr.write(f"error: {one_line(text)}\n")
    return code


def _text_and_code(error: BaseException) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    # typer's and click's own: an option that does not exist, a missing argument. Which class that is
    # depends on the version of typer, what it offers does not.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        return usage_text(error), EXIT_USAGE
    if is_user_error(error):
        return str(error), EXIT_ERROR
    # Files are written under their names; what has none is one of the standard streams.
    if isinstance(error, OSError) and error.errno in _STREAM_FAILS and error.filename is None:
        return f"standard output: cannot write: {error.strerror}", EXIT_ERROR
    return (
        f"fault in the program: {describe(error)} ({TRACEBACK_VARIABLE}=1 shows where)",
        EXIT_ERROR,
    )


def is_user_error(error: BaseException) -> bool:
    """Whether an exception is one of the named ones, whose message is written for the user."""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" in USER_ERRORS for kind in type(error).__mro__
    )


def describe(error: BaseException) -> str:
    """The message; where it was not written for the user, the exception's name before it."""
    return str(error) if is_user_error(error) else f"{type(error).__name__}: {error}"


def usage_text(error: BaseException) -> str:
    """Message of a usage error, and the command that explains the usage."""
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    return f"{error.format_message()}{hint}"  # type: ignore[attr-defined]


def one_line(text: str) -> str:
    """Text without line breaks and control characters, which file names may hold."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
