"""The command ``qmmlmm compile``: compile the mesh and networks for this machine."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from qmmlmm.embedding.compiled_cache import ENDING, install_compiled
from qmmlmm.embedding.mesh_kernel import compile_mesh_kernel
from qmmlmm.errors import SettingError
from qmmlmm.ml.compiled_network import compile_network
from qmmlmm.ml.network_file import load_network
from qmmlmm.ml.recorded_network import OperationsName, needed_operations
from qmmlmm.ml.response_network import ResponseNetwork

EMBEDDINGS = {"electrostatic": (True,), "mechanical": (False,), "both": (True, False)}


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``compile`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "compile",
        help="compile the mesh of embedded ML terms, and networks, for this machine",
        description="Compiled parts are written to ~/.cache/qmmlmm and used by every simulation on this machine; "
        "QMMLMM_CACHE names another folder. A C++ compiler such as g++ is needed.",
        epilog="example: qmmlmm compile model.pt",
        parents=parents,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("models", type=Path, nargs="*", help="models by qmmlmm train; a minute or more for each")
    parser.add_argument("--embedding", choices=EMBEDDINGS, default="electrostatic", help="of the terms that use them")
    parser.add_argument("--members", action="store_true", help="also the forces of each member of a committee")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the network is to run")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="write the files to this folder instead, for another machine of the same kind",
    )  # fmt: skip
    parser.add_argument(
        "--install", type=Path, nargs="+", default=[], metavar="FILE", help="take files that --output wrote"
    )
    parser.add_argument(
        "--trust-code", action="store_true", help="you know who wrote the files of --install: they are code that is run"
    )


def _run(options: argparse.Namespace) -> int:
    if options.install:
        if options.models or options.output:
            raise SettingError("--install compiles nothing; leave out models and --output")
        for path in options.install:
            _report(install_compiled(path, trust_code=options.trust_code), None)
        return 0
    # All models are read before the first minute of compiling.
    networks = [load_network(path) for path in options.models]
    output: Path | None = options.output
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    _report(compile_mesh_kernel(None if output is None else output / f"mesh{ENDING}"), start)
    for path, network in zip(options.models, networks, strict=True):
        for name in _names(network, options.embedding, options.members):
            start = time.perf_counter()
            target = None if output is None else output / f"{path.stem}-{name}-{options.device}{ENDING}"
            _report(compile_network(network, name, options.device, target), start)
    return 0


def _names(network: ResponseNetwork, embedding: str, members: bool) -> tuple[OperationsName, ...]:
    kinds = (False, True) if members else (False,)
    found = (
        name
        for surrounded in EMBEDDINGS[embedding]
        for each_member in kinds
        for name in needed_operations(network, surrounded, each_member)
    )
    return tuple(dict.fromkeys(found))


def _report(path: Path, start: float | None) -> None:
    took = "" if start is None else f", {time.perf_counter() - start:.0f} s"
    sys.stdout.write(f"{path} ({path.stat().st_size // 1024} kB{took})\n")
    sys.stdout.flush()
