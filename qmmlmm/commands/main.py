"""The entry point of the command ``qmmlmm``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib.metadata import version

import openmm
import torch

from qmmlmm.commands import compile as compile_command
from qmmlmm.commands import completion, correct, learn, new, prepare, reaction, run, site, spectrum, train
from qmmlmm.commands.info import add_command as add_info
from qmmlmm.errors import QmmlmmError, TerminatedError
from qmmlmm.runs.termination import raise_terminated

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
BROKEN_PIPE = 141
"""Exit status if nobody reads the output any more, as shells have it."""
EXIT_STATUSES = {
    0: "done",
    1: "an error that the message explains",
    2: "wrong arguments",
    3: "qmmlmm learn ended before its error bound held",
    INTERRUPTED: "interrupted",
}
EXPECTED = (QmmlmmError, OSError, KeyboardInterrupt, openmm.OpenMMException, torch.OutOfMemoryError)
"""Exceptions that a user can cause. Others are faults of qmmlmm, and have a traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, which ``qmmlmm --help`` lists.

    What a user can cause is a message on standard error, with ``--debug`` also a traceback. SIGTERM, which batch
    systems send, stops a command like Ctrl-C.
    """
    options = create_parser().parse_args(arguments, argparse.Namespace(debug=False))
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, raise_terminated)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read the output, such as head, has seen enough; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except EXPECTED as error:
        if options.debug:
            traceback.print_exc()
        sys.stderr.write(f"qmmlmm: {_message(error)}\n")
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    finally:
        if signal.getsignal(signal.SIGTERM) is raise_terminated:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def create_parser() -> argparse.ArgumentParser:
    """Return the parser of the command and of all its commands."""
    # Either before or after the name of the command; without a default, so that the second does not undo the first.
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of errors")
    parser = argparse.ArgumentParser(
        prog="qmmlmm",
        description="QM/ML/MM simulations in one OpenMM System.",
        epilog="example: qmmlmm new run.toml; exit status: "
        + "; ".join(f"{number} {meaning}" for number, meaning in EXIT_STATUSES.items()),
        parents=[debug],
    )
    parser.add_argument("--version", action="version", version=f"qmmlmm {version('qmmlmm')}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (prepare, site, new, run, train, compile_command, learn, spectrum, correct, reaction):
        command.add_command(commands, [debug])
    add_info(commands, [debug])
    completion.add_command(commands, [debug])
    return parser


def _message(error: BaseException) -> str:
    """Return what happened, and what to do."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command continues where this one stopped"
    if isinstance(error, torch.OutOfMemoryError):
        return f"error: the memory of the device is full ({error}); take a smaller batch or a smaller network"
    if isinstance(error, openmm.OpenMMException):
        return f"error: OpenMM: {error}; --debug shows where"
    return str(error) if isinstance(error, TerminatedError) else f"error: {error}"
