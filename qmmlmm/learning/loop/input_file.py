"""A loop described in a TOML file, for ``qmmlmm learn``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.coupling.hamiltonian import Term
from qmmlmm.coupling.region import Region
from qmmlmm.errors import MissingDependencyError, listed, nearest
from qmmlmm.learning.data_set import read_frames
from qmmlmm.learning.loop.collective_variables import Distance, DistanceDifference, Torsion
from qmmlmm.learning.loop.errors import LoopError
from qmmlmm.learning.loop.label_queue import LabelSettings
from qmmlmm.learning.loop.label_task import JobLimits
from qmmlmm.learning.loop.learning_loop import LearningLoop
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.learning.training import TrainingSettings
from qmmlmm.ml.response_network import ResponseSettings
from qmmlmm.mm.selection import select
from qmmlmm.qm import PySCFPotential

TOP = ("directory", "system", "region", "qm", "loop", "network", "training", "labels", "variable", "umbrella", "walker",
       "embedding", "method", "model", "data", "platform")  # fmt: skip
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
    LoopError
        If a key is unknown or missing, with those that are known.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise LoopError(f"{path} is not valid TOML: {error}") from error
    _check("", content, TOP)
    folder = path.parent
    topology, system, positions = _read_system(_table(content, "system"), folder)
    region = _table(content, "region")
    _check("region", region, ("name", "select", "charge", "multiplicity"))
    atoms = select(topology, str(_needed("region", region, "select")))
    term = Term(
        _build("qm", _table(content, "qm"), PySCFPotential),
        Region(region.get("name", "region"), atoms, region.get("charge", 0), region.get("multiplicity", 1)),
        embedding=content.get("embedding", "electrostatic"),
    )
    variables = _read_variables(content.get("variable", []))
    biases, walkers = _read_walkers(content, variables, system.usesPeriodicBoundaryConditions())
    labels = dict(content.get("labels", {}))
    _check("labels", labels, ("workers", "attempts", "threads", "memory", "seconds", "dask"))
    limits = JobLimits(**{key: labels[key] for key in ("threads", "memory", "seconds") if key in labels})
    return LearningLoop(
        folder / content.get("directory", path.stem + "_run"),
        topology,
        system,
        term,
        positions,
        settings=_build("loop", content.get("loop", {}), LoopSettings),
        walkers=walkers,
        biases=biases,
        variables=variables,
        network=_build("network", content.get("network", {}), ResponseSettings),
        training=_build("training", {"steps": 2000, **content.get("training", {})}, TrainingSettings),
        labelling=LabelSettings(labels.get("workers", 1), limits, labels.get("attempts", 2)),
        executor=_dask(labels["dask"]) if "dask" in labels else None,
        method=content.get("method"),
        model=folder / content["model"] if "model" in content else None,
        labels=[frame for name in content.get("data", []) for frame in read_frames(folder / name)],
        platform=content.get("platform", "CPU"),
    )


def _read_system(table: Mapping[str, Any], folder: Path) -> tuple[app.Topology, openmm.System, Any]:
    _check("system", table, ("prmtop", "coordinates", "pdb", "force_field", "cutoff", "constraints", "no_box"))
    method: dict[str, Any] = {"nonbondedMethod": app.NoCutoff if table.get("no_box") else app.PME}
    if not table.get("no_box"):
        method["nonbondedCutoff"] = table.get("cutoff", 0.9) * unit.nanometer
    constraints = table.get("constraints", "HBonds")
    known = {"none": None, "HBonds": app.HBonds, "AllBonds": app.AllBonds, "HAngles": app.HAngles}
    if constraints not in known:
        raise LoopError(f"system: constraints is one of {listed(known)}, got {constraints!r}")
    method["constraints"] = known[constraints]
    if "prmtop" in table:
        coordinates = app.AmberInpcrdFile(str(folder / _needed("system", table, "coordinates")))
        prmtop = app.AmberPrmtopFile(str(folder / table["prmtop"]), periodicBoxVectors=coordinates.boxVectors)
        return prmtop.topology, prmtop.createSystem(**method), coordinates.positions
    pdb = app.PDBFile(str(folder / _needed("system", table, "pdb")))
    force_field = app.ForceField(*_needed("system", table, "force_field"))
    return pdb.topology, force_field.createSystem(pdb.topology, **method), pdb.positions


def _read_variables(tables: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for table in tables:
        _check("variable", table, ("name", *VARIABLES))
        kinds = [kind for kind in VARIABLES if kind in table]
        if len(kinds) != 1:
            raise LoopError(f"a variable has a name and one of {listed(VARIABLES)}, got {listed(table)}")
        count, make = VARIABLES[kinds[0]]
        if len(table[kinds[0]]) != count:
            raise LoopError(f"variable: a {kinds[0]} has {count} atoms, got {table[kinds[0]]}")
        found[str(_needed("variable", table, "name"))] = make(*table[kinds[0]])
    return found


def _read_walkers(
    content: Mapping[str, Any], variables: Mapping[str, Any], periodic: bool
) -> tuple[list[openmm.Force], list[Walker]]:
    """Return the biases, and a walker for each centre of the umbrella or each [[walker]]."""
    if "umbrella" not in content:
        tables = content.get("walker", [{}])
        for table in tables:
            _check("walker", table, ("parameters",))
        return [], [Walker(table.get("parameters", {})) for table in tables]
    if "walker" in content:
        raise LoopError("an umbrella has a walker for each of its centres: leave [[walker]] out")
    umbrella = content["umbrella"]
    _check("umbrella", umbrella, ("variable", "centres", "force_constant"))
    name = str(_needed("umbrella", umbrella, "variable"))
    if name not in variables:
        raise LoopError(f"umbrella: there is no variable {name!r}; there are {listed(variables) or 'none'}")
    key = "umbrella"
    constant = float(_needed("umbrella", umbrella, "force_constant"))
    centres = np.array(_needed("umbrella", umbrella, "centres"), dtype=float)
    walkers = [Walker({f"{key}_centre": float(centre), f"{key}_k": constant}) for centre in centres]
    return [variables[name].umbrella(key, periodic)], walkers


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


def _build(name: str, table: Mapping[str, Any], kind: Callable[..., Any]) -> Any:
    _check(name, table, [f.name for f in fields(kind)])  # type: ignore[arg-type]
    try:
        return kind(**table)
    except TypeError as error:
        raise LoopError(f"[{name}]: {error}") from error


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = _needed("", content, name)
    if not isinstance(found, dict):
        raise LoopError(f"{name} is a table: write [{name}] above its keys")
    return found


def _needed(where: str, table: Mapping[str, Any], key: str) -> Any:
    if key not in table:
        raise LoopError(f"{f'[{where}] ' if where else 'the file '}lacks {key!r}")
    return table[key]


def _check(where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    names = list(known)
    for key in table:
        if key not in names:
            raise LoopError(
                f"{f'[{where}] has' if where else 'the file has'} the unknown key {key!r}; known are "
                f"{listed(names, 40)}.{nearest(key, names)}"
            )
