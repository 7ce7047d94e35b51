"""A `FixedResponse` in one call: geometries, their QM labels in the field, and the fit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.potential import EvaluatedPotential, RegionPotential
from qmmlmm.coupling.region import Region
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.errors import DataSetError, SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.learning.labels.data_set import append_frames, read_frames
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.learning.labels.labeller import Labeller
from qmmlmm.learning.training.response_fit import FEWEST_LABELS, fit_response
from qmmlmm.ml.fixed_response import FixedResponse
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.progress_display import progress_bar
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_array,
    check_flag,
    check_instance,
    check_items,
    check_path,
    check_quantity,
    check_seed,
    check_text,
    check_whole_number,
)
from qmmlmm.units import FloatArray, Scalar, Vectors

MOST_LABELS = 10_000
FRICTION = 5.0
"""Of the thermostat, 1/ps."""


@dataclass(frozen=True)
class _Run:
    """A short run of the base from one geometry, with a label after every part of it."""

    base: RegionPotential
    steps: int
    temperature: float
    step_size: float
    seed: int
    platform: str | None


def response_from_qm(
    topology: app.Topology,
    system: openmm.System,
    region: Region,
    qm: EvaluatedPotential,
    positions: Vectors | Geometry | Sequence[Geometry],
    *,
    base: RegionPotential | None = None,
    n_labels: int = 10,
    steps: int = 500,
    temperature: Scalar = 300.0,
    step_size: Scalar = 0.0005,
    seed: int = 0,
    platform: str | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> FixedResponse:
    """Label some ten geometries of a region in the field of its surroundings, and fit its response.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
        System of the force field, as for `create_mixed_system`.
    region : Region
        The molecule.
    qm : EvaluatedPotential
        Potential of the labels, such as `PySCFPotential("b3lyp", "6-31g*")`.
    positions : (n_particles, 3) Quantity or float array, nm, or Geometry, or list of Geometry, nm
        Equilibrated positions, from which the base runs; with the box of a Geometry, or that of the System. Or the
        geometries to label.
    base : RegionPotential, optional
        Potential of the run, in mechanical embedding; needed for one geometry.
    n_labels : int
        Number of labels if there is a run.
    steps : int
        Steps of the run before each label.
    temperature : Quantity or float, K
    step_size : Quantity or float, ps
    seed : int
        Of the run.
    platform : str, optional
        Name of OpenMM's platform for the run; OpenMM chooses one if not given.
    path : path, optional
        Data set, ``.xyz``, to which each finished label is added. Labels in it are used and not computed again.
    progress : bool, optional
        Whether to show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    FixedResponse
        For `EmbeddedPotential`.

    Raises
    ------
    SettingError
        If an argument has the wrong type or is out of range.
    DataSetError
        If the data set is of another method or region, or cannot be written.
    EvaluationError
        If a QM calculation fails. Labels before it are in the data set.
    RegionError, PotentialError, HamiltonianError, UnsupportedSystemError
        As `create_mixed_system`.

    Notes
    -----
    A label is two calculations, one in the field and one in a vacuum. A run that continues with labels in the data set
    starts again from the positions, with other random numbers.
    """
    check_instance("topology", topology, app.Topology, "an openmm.app.Topology")
    check_instance("system", system, openmm.System, "an openmm.System")
    check_instance("region", region, Region)
    check_instance("qm", qm, EvaluatedPotential)  # type: ignore[type-abstract]
    if base is not None:
        check_instance("base", base, RegionPotential)  # type: ignore[type-abstract]
    check_whole_number("n_labels", n_labels, at_least=FEWEST_LABELS, at_most=MOST_LABELS)
    check_whole_number("steps", steps, at_most=LARGEST_COUNT, what="a number of steps")
    temperature = check_quantity("temperature", temperature, unit.kelvin, above=0.0)
    step_size = check_quantity("step_size", step_size, unit.picosecond, above=0.0, at_most=0.01)
    check_seed("seed", seed)
    _check_platform(platform)
    if progress is not None:
        check_flag("progress", progress)
    target = None if path is None else _check_target(path)
    given = _geometries(positions, system)
    if base is None and isinstance(given, Geometry):
        raise SettingError("base: one geometry is the start of a run; give its potential, or a list of Geometry")
    name = f"{region.name}/response"
    mixed = create_mixed_system(topology, system, Hamiltonian([Term(qm, region, embedding="electrostatic", name=name)]))
    term = mixed.evaluated_term(name)
    labeller = Labeller(term, qm.method_name)
    frames = _read(target, labeller.method, term)
    if isinstance(given, Geometry):
        assert base is not None
        count = max(0, n_labels - len(frames))
        run = _Run(base, int(steps), temperature, step_size, seed + len(frames), platform)
        geometries = _run(topology, system, region, given, run, count) if count else iter(())
    else:
        known = {frame.name for frame in frames}
        missing = [geometry for geometry in given if _name(geometry) not in known]
        count, geometries = len(missing), iter(missing)
    with progress_bar(len(frames) + count, "QM labels", "label", initial=len(frames), shown=progress) as bar:
        for geometry in geometries:
            frames.append(labeller.label(geometry, _name(geometry)))
            if target is not None:
                append_frames(target, frames[-1:])
            bar.update()
    # The same numbers whether or not the labels were computed in several calls.
    return fit_response(frames if target is None else read_frames(target))


def _run(
    topology: app.Topology, system: openmm.System, region: Region, start: Geometry, run: _Run, count: int
) -> Iterator[Geometry]:
    """Yield geometries of a run of the base, nm."""
    term = Term(run.base, region, embedding="mechanical", name=f"{region.name}/base")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    integrator = openmm.LangevinMiddleIntegrator(run.temperature, FRICTION, run.step_size)
    integrator.setRandomNumberSeed(1 + run.seed % (2**31 - 2))  # zero would be a seed from the clock
    chosen = () if run.platform is None else (openmm.Platform.getPlatform(run.platform),)
    try:
        context = openmm.Context(mixed.system, integrator, *chosen)
        if start.box is not None:
            context.setPeriodicBoxVectors(*start.box)
        context.setPositions(start.positions)
        context.setVelocitiesToTemperature(run.temperature, 1 + run.seed % (2**31 - 2))
    except (openmm.OpenMMException, ValueError) as error:
        mixed.raise_original(error)
    for _ in range(count):
        try:
            integrator.step(run.steps)
        except (openmm.OpenMMException, ValueError) as error:
            mixed.raise_original(error)
        yield Geometry.from_context(context)


def _geometries(positions: object, system: openmm.System) -> Geometry | list[Geometry]:
    """Return the start of a run, or the geometries to label, each of the System."""
    periodic = system.usesPeriodicBoundaryConditions()
    if isinstance(positions, Geometry):
        return _of_system("positions", positions, system)
    if isinstance(positions, list | tuple) and any(isinstance(item, Geometry) for item in positions):
        items = check_items("positions", positions, Geometry)
        if len(items) < FEWEST_LABELS:
            raise SettingError(f"positions: {len(items)} geometries are too few, {FEWEST_LABELS} are needed")
        return [_of_system(f"positions, geometry {k}", item, system) for k, item in enumerate(items)]
    n = system.getNumParticles()
    return Geometry(
        check_array("positions", positions, (n, 3), unit.nanometer), _default_box(system) if periodic else None
    )


def _of_system(name: str, geometry: Geometry, system: openmm.System) -> Geometry:
    check_array(name, geometry.positions, (system.getNumParticles(), 3))
    if not system.usesPeriodicBoundaryConditions():
        return Geometry(geometry.positions)
    if geometry.box is None:
        raise SettingError(f"{name}: the System is periodic, and the Geometry has no box")
    return Geometry(geometry.positions, check_array(f"{name}: box", geometry.box, (3, 3)))


def _default_box(system: openmm.System) -> FloatArray:
    return np.array([list(row.value_in_unit(unit.nanometer)) for row in system.getDefaultPeriodicBoxVectors()])


def _name(geometry: Geometry) -> str:
    """Return the name of the label of a geometry, by which it is found again."""
    digest = hashlib.sha256(np.ascontiguousarray(geometry.positions).tobytes())
    if geometry.box is not None:
        digest.update(np.ascontiguousarray(geometry.box).tobytes())
    return f"response-{digest.hexdigest()[:16]}"


def _check_platform(platform: str | None) -> None:
    if platform is None:
        return
    check_text("platform", platform)
    known = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    if platform not in known:
        raise SettingError(f"platform: there is no {platform!r}; OpenMM has {', '.join(known)}")


def _check_target(path: str | os.PathLike[str]) -> Path:
    """Return the path of a data set that can be written: a label is too expensive to find out after it."""
    target = check_path("path", path, DataSetError)
    if target.suffix not in (".xyz", ".extxyz"):
        raise DataSetError(f"path: the name of a data set to write ends in .xyz or .extxyz, got {str(target)!r}")
    if not os.access(target.parent, os.W_OK) or target.is_dir():
        raise DataSetError(f"path: {str(target)!r} cannot be written; its folder must be there, and writable")
    return target


def _read(target: Path | None, method: str, term: EvaluatedTerm) -> list[LabelledFrame]:
    """Return the finished labels, which are of this method and region."""
    if target is None or not target.exists() or not target.stat().st_size:
        return []
    frames = read_frames(target)
    specification = term.layout.specification
    for frame in frames:
        same = (frame.charge, frame.multiplicity) == (specification.charge, specification.multiplicity)
        if frame.method != method or not same or list(frame.atomic_numbers) != list(specification.atomic_numbers):
            raise DataSetError(
                f"path: frame {frame.name!r} of {str(target)!r} is of another method or region: {frame.method!r} with "
                f"{len(frame.atomic_numbers)} atoms and charge {frame.charge}, not {method!r} with "
                f"{len(specification.atomic_numbers)} and {specification.charge}; name another file"
            )
    return frames
