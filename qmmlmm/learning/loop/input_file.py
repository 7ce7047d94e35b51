"""A loop described in a TOML file, for ``qmmlmm learn``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from qmmlmm.coupling.hamiltonian import Term
from qmmlmm.coupling.region import Region
from qmmlmm.errors import InputFileError, MissingDependencyError, listed
from qmmlmm.learning.data_set import read_frames
from qmmlmm.learning.loop.collective_variables import Distance, DistanceDifference, Torsion
from qmmlmm.learning.loop.label_queue import LabelSettings
from qmmlmm.learning.loop.label_task import JobLimits
from qmmlmm.learning.loop.learning_loop import LearningLoop
from qmmlmm.learning.loop.metadynamics import HillVariable, Metadynamics
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.learning.training import TrainingSettings
from qmmlmm.ml.response_network import ResponseSettings
from qmmlmm.mm.input_file import build_from, check_keys, needed, read_system, read_toml, table_of
from qmmlmm.mm.selection import select
from qmmlmm.qm import PySCFPotential

TOP = ("directory", "system", "region", "qm", "loop", "network", "training", "labels", "variable", "umbrella",
       "metadynamics", "walker", "embedding", "method", "model", "data", "platform")  # fmt: skip
VARIABLES: dict[str, tuple[int, Callable[..., Any]]] = {
    "distance": (2, Distance),
    "difference": (3, DistanceDifference),
    "torsion": (4, Torsion),
}


def read_loop(path: Path) -> LearningLoop:
    """Return the loop that a file describes; paths in it are relative to the file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputFileError
        If a key is unknown or missing, with those that are known.
    """
    content = read_toml(path, TOP)
    folder = path.parent
    topology, system, positions = read_system(table_of(content, "system"), folder)
    region = table_of(content, "region")
    check_keys("region", region, ("name", "select", "charge", "multiplicity"))
    atoms = select(topology, str(needed("region", region, "select")))
    term = Term(
        build_from("qm", table_of(content, "qm"), PySCFPotential),
        Region(region.get("name", "region"), atoms, region.get("charge", 0), region.get("multiplicity", 1)),
        embedding=content.get("embedding", "electrostatic"),
    )
    variables = _read_variables(content.get("variable", []))
    biases, walkers = _read_walkers(content, variables, system.usesPeriodicBoundaryConditions())
    labels = dict(content.get("labels", {}))
    check_keys("labels", labels, ("workers", "attempts", "threads", "memory", "seconds", "dask"))
    limits = JobLimits(**{key: labels[key] for key in ("threads", "memory", "seconds") if key in labels})
    return LearningLoop(
        folder / content.get("directory", path.stem + "_run"),
        topology,
        system,
        term,
        positions,
        settings=build_from("loop", content.get("loop", {}), LoopSettings),
        walkers=walkers,
        biases=biases,
        variables=variables,
        metadynamics=_read_metadynamics(content, variables),
        network=build_from("network", content.get("network", {}), ResponseSettings),
        training=build_from("training", {"steps": 2000, **content.get("training", {})}, TrainingSettings),
        labelling=LabelSettings(labels.get("workers", 1), limits, labels.get("attempts", 2)),
        executor=_dask(labels["dask"]) if "dask" in labels else None,
        method=content.get("method"),
        model=folder / content["model"] if "model" in content else None,
        labels=[frame for name in content.get("data", []) for frame in read_frames(folder / name)],
        platform=content.get("platform", "CPU"),
    )


def _read_variables(tables: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for table in tables:
        check_keys("variable", table, ("name", *VARIABLES))
        kinds = [kind for kind in VARIABLES if kind in table]
        if len(kinds) != 1:
            raise InputFileError(f"a variable has a name and one of {listed(VARIABLES)}, got {listed(table)}")
        count, make = VARIABLES[kinds[0]]
        if len(table[kinds[0]]) != count:
            raise InputFileError(f"variable: a {kinds[0]} has {count} atoms, got {table[kinds[0]]}")
        found[str(needed("variable", table, "name"))] = make(*table[kinds[0]])
    return found


def _read_walkers(
    content: Mapping[str, Any], variables: Mapping[str, Any], periodic: bool
) -> tuple[list[openmm.Force], list[Walker]]:
    """Return the biases, and a walker for each centre of the umbrella or each [[walker]]."""
    if "umbrella" not in content:
        tables = content.get("walker", [{}])
        for table in tables:
            check_keys("walker", table, ("parameters",))
        return [], [Walker(table.get("parameters", {})) for table in tables]
    if "walker" in content:
        raise InputFileError("an umbrella has a walker for each of its centres: leave [[walker]] out")
    umbrella = content["umbrella"]
    check_keys("umbrella", umbrella, ("variable", "centres", "force_constant"))
    name = str(needed("umbrella", umbrella, "variable"))
    if name not in variables:
        raise InputFileError(f"umbrella: there is no variable {name!r}; there are {listed(variables) or 'none'}")
    key = "umbrella"
    constant = float(needed("umbrella", umbrella, "force_constant"))
    centres = np.array(needed("umbrella", umbrella, "centres"), dtype=float)
    walkers = [Walker({f"{key}_centre": float(centre), f"{key}_k": constant}) for centre in centres]
    return [variables[name].umbrella(key, periodic)], walkers


def _read_metadynamics(content: Mapping[str, Any], variables: Mapping[str, Any]) -> Metadynamics | None:
    if "metadynamics" not in content:
        return None
    table = dict(table_of(content, "metadynamics"))
    check_keys("metadynamics", table, ("along", "height", "bias_factor", "interval", "shared"))
    along = []
    for entry in needed("metadynamics", table, "along"):
        check_keys("metadynamics.along", entry, ("variable", "width", "low", "high"))
        name = str(needed("metadynamics.along", entry, "variable"))
        if name not in variables:
            raise InputFileError(
                f"metadynamics: there is no variable {name!r}; there are {listed(variables) or 'none'}"
            )
        width = float(needed("metadynamics.along", entry, "width"))
        along.append(HillVariable(variables[name], width, entry.get("low"), entry.get("high")))
    for name in ("height", "bias_factor", "interval"):
        needed("metadynamics", table, name)
    del table["along"]
    return Metadynamics(variables=tuple(along), **table)


def _dask(address: str) -> Callable[[], Executor]:
    """Return what connects to a scheduler of Dask."""

    def connect() -> Executor:
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingDependencyError(
                f"labels: dask = {address!r} needs the package distributed: pip install 'qmmlmm[dask]'"
            ) from error
        executor: Executor = Client(address).get_executor()
        return executor

    return connect
