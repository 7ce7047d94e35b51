"""Scans along one or two variables, forth and back, that can be continued after a crash."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import unit

from qmmlmm.errors import QmmlmmWarning, SettingError, shown
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.progress_display import progress_bar
from qmmlmm.reactions.calculation_directory import calculation_directory
from qmmlmm.reactions.calculation_files import read_arrays, write_arrays
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.evaluation_log import EvaluationLog, field_of
from qmmlmm.reactions.internal_coordinates import Thresholds, check_walk
from qmmlmm.reactions.optimisation import optimised
from qmmlmm.reactions.path import ENERGY, ReactionPath
from qmmlmm.reactions.restraint import RestrainedSurface, Restraint
from qmmlmm.reactions.scan_results import GridScan, Scan, ScanPoint
from qmmlmm.reactions.structure import Start
from qmmlmm.reactions.surface import TOLERANCE, SurfaceState
from qmmlmm.sampling.variable import Variable
from qmmlmm.setting_checks import check_array, check_flag, check_instance, check_path, check_quantity
from qmmlmm.units import FloatArray, Scalar, Vectors

STIFFNESS = {"nanometer": 400000.0, "radian": 2000.0}
"""Default force constants, kJ/mol per nm^2 or rad^2: about those of a bond and stiffer than an angle."""


REACHED = 2.0
"""Distance of a value from its centre, as multiple of the spacing of the centres, that a restraint allows."""


def scan(
    mixed: MixedSystem,
    variable: Variable | Sequence[Variable],
    positions: Start,
    *,
    centres: Vectors | Sequence[Vectors],
    force_constant: Scalar | Sequence[Scalar] | None = None,
    both_ways: bool = False,
    directory: str | os.PathLike[str] | None = None,
    atoms: Iterable[int] | str | None = None,
    hold: Iterable[int] | str | None = None,
    relax: bool = True,
    thresholds: Thresholds | None = None,
    coordinates: str = "tric",
    max_steps: int = 100,
    tolerance: Scalar = TOLERANCE,
    box_vectors: Vectors | None = None,
    platform: str | None = None,
) -> Scan | GridScan:
    """Optimise a region at restrained values of one variable, or of two, one after another.

    Parameters
    ----------
    mixed : MixedSystem
    variable : Variable or two of them
        Such as ``Combination([(1.0, Distance(0, 1)), (-1.0, Distance(1, 2))])``; its atoms are among `atoms`.
    positions : Structure, (n_particles, 3) Quantity or array, nm
        Start, at or near the first centre.
    centres : Quantity or float array, or two of them
        Values of each variable, in its unit, in the order in which they are visited.
    force_constant : Quantity or float, or two of them, optional
        In kJ/mol per square of the variable's unit; 400,000 for nm and 2,000 for radians if not given.
    both_ways : bool
        Whether the scan goes back too, which shows whether it depends on its history.
    directory : path, optional
        Folder of the results: table, figure and structures, of a grid those along its lowest pass. A scan that was
        killed continues there, without computing any energy again.
    atoms, hold, relax, coordinates, tolerance, box_vectors, platform
        As in `optimise`.
    thresholds : Thresholds, optional
    max_steps : int
        Largest number of steps at each point.

    Returns
    -------
    Scan or GridScan

    Raises
    ------
    SettingError
        If a centre, force constant or another argument is out of range, or no step reaches the restraint.
    SelectionError
        If a variable depends on atoms that are not among `atoms`.
    RunDirectoryError
        If the directory is in use, or has another scan.
    EvaluationError
        If a term or geomeTRIC fails.
    """
    variables = _variables(variable)
    grids = _centres(variables, centres)
    stiffness = _force_constants(variables, force_constant)
    check_flag("both_ways", both_ways)
    limits = Thresholds() if thresholds is None else check_instance("thresholds", thresholds, Thresholds)
    check_walk(coordinates, max_steps)
    surface = EnergySurface(
        mixed,
        positions,
        atoms=atoms,
        hold=hold,
        relax=relax,
        box_vectors=box_vectors,
        platform=platform,
        tolerance=tolerance,
    )
    RestrainedSurface(surface, [Restraint(v, 0.0, 0.0) for v in variables])  # refuses wrong atoms before any work
    folder = None if directory is None else check_path("directory", directory)
    work = _Work(surface, variables, grids, stiffness, limits, coordinates, max_steps, folder)
    settings: dict[str, object] = {
        "variables": [repr(v) for v in variables],
        "centres": [grid.tolist() for grid in grids],
        "force constants": list(stiffness),
        "thresholds": vars(limits),
        "coordinates": coordinates,
    }
    order = _order([len(grid) for grid in grids])
    ways = [("forth", order), ("back", order[::-1])] if both_ways else [("forth", order)]
    held = nullcontext() if folder is None else calculation_directory(folder, "scan", surface, settings)
    found: dict[str, dict[tuple[int, ...], ScanPoint]] = {}
    with held, progress_bar(len(order) * len(ways), "scan", "point") as bar:
        for way, places in ways:
            found[way] = {}
            for place in places:
                found[way][place] = work.point(way, place)
                bar.update()
        result = _collected(mixed, variables, grids, order, found)
        if folder is not None:
            _write(result, folder)
    return result


@dataclass(frozen=True)
class _Work:
    """What is the same for all points of a scan."""

    surface: EnergySurface
    variables: tuple[Variable, ...]
    grids: tuple[FloatArray, ...]
    stiffness: tuple[float, ...]
    limits: Thresholds
    coordinates: str
    max_steps: int
    folder: Path | None

    def point(self, way: str, place: tuple[int, ...]) -> ScanPoint:
        """Return the point of a way, from its file or by an optimisation from the present state of the surface."""
        targets = tuple(float(grid[k]) for grid, k in zip(self.grids, place, strict=True))
        name = "_".join([way, *(f"{k:03d}" for k in place)])
        path = None if self.folder is None else self.folder / f"{name}.npz"
        known = None if path is None else read_arrays(path)
        if known is not None:
            return self._recalled(known, targets)
        if self.folder is not None:
            logs = self.folder / f"{name}_evaluations"
            logs.mkdir(exist_ok=True)
            self.surface.log = EvaluationLog(logs)
        restraints = [Restraint(*given) for given in zip(self.variables, targets, self.stiffness, strict=True)]
        restrained = RestrainedSurface(self.surface, restraints)
        title = f"scan, point at {', '.join(f'{target:.4g}' for target in targets)}"
        found = optimised(
            restrained, self.limits, self.coordinates, self.max_steps, warn=False, title=title, leave=False
        )
        evaluations = found.evaluations if self.surface.log is None else self.surface.log.length
        bias = restrained.restraint_energy()
        energy = found.energy.value_in_unit(ENERGY) - bias
        arrays: dict[str, FloatArray | float] = {
            "positions": self.surface.state.positions,
            "energy": energy,
            "values": np.array(restrained.values()),
            "restraint": bias,
            "converged": float(found.converged),
            "evaluations": float(evaluations),
        }
        field = self.surface.state.field
        if field is not None:
            arrays |= {"charges": field.charges, "forces": field.forces}
        point = self._made({k: np.asarray(v) for k, v in arrays.items()}, targets)
        self._check(point)
        if path is not None:
            write_arrays(path, arrays)
            assert self.surface.log is not None
            self.surface.log.remove()
            (path.parent / f"{name}_evaluations").rmdir()
            self.surface.log = None
        return point

    def _recalled(self, arrays: dict[str, FloatArray], targets: tuple[float, ...]) -> ScanPoint:
        self.surface.state = SurfaceState(arrays["positions"], field_of(arrays))
        return self._made(arrays, targets)

    def _made(self, arrays: dict[str, FloatArray], targets: tuple[float, ...]) -> ScanPoint:
        surface = self.surface
        return ScanPoint(
            surface.mixed.topology,
            arrays["positions"] * unit.nanometer,
            None if surface.box is None else surface.box * unit.nanometer,
            float(arrays["energy"]) * ENERGY,
            tuple(surface.atoms.tolist()),
            surface.hold,
            centres=targets,
            values=tuple(float(v) for v in arrays["values"]),
            restraint_energy=float(arrays["restraint"]) * ENERGY,
            converged=bool(arrays["converged"]),
            evaluations=int(arrays["evaluations"]),
        )

    def _check(self, point: ScanPoint) -> None:
        """Raise if the restraint was not reached, and warn of a point that is not converged."""
        for variable, grid, target, value in zip(self.variables, self.grids, point.centres, point.values, strict=True):
            spacing = np.abs(np.diff(grid))
            allowed = REACHED * float(spacing.min()) if len(grid) > 1 else np.inf
            away = float(variable.difference(value, target))
            if abs(away) > allowed:
                raise SettingError(
                    f"no step reached the restraint {target:g}: the variable is {value:g}. Raise force_constant, begin "
                    "nearer to the first centre, or choose centres that the molecule can reach"
                )
        if not point.converged:
            warnings.warn(
                f"the point at {', '.join(f'{c:g}' for c in point.centres)} is not converged after "
                f"{point.evaluations} evaluations; raise max_steps",
                QmmlmmWarning,
                stacklevel=4,
            )


def _write(result: Scan | GridScan, folder: Path) -> None:
    """Write table, figure and structures, those of a grid along its lowest pass."""
    result.write_csv(folder / "scan.csv")
    if isinstance(result, GridScan):
        if min(result.energies.shape) > 1:
            result.save_figure(folder / "scan.png")
        first, last = result.minima()
        if first == last:
            return
        path: ReactionPath = result.path(first, last)
    else:
        result.save_figure(folder / "scan.png")
        path = result
    path.write_pdb(folder / "scan.pdb")
    path.write_xyz(folder / "scan.xyz")


def _collected(
    mixed: MixedSystem,
    variables: tuple[Variable, ...],
    grids: tuple[FloatArray, ...],
    order: list[tuple[int, ...]],
    found: dict[str, dict[tuple[int, ...], ScanPoint]],
) -> Scan | GridScan:
    lowest = {
        place: min((points[place] for points in found.values()), key=lambda point: point.energy._value)
        for place in order
    }
    if len(variables) == 1:
        forth = tuple(found["forth"][place] for place in order)
        back = tuple(found["back"][place] for place in order) if "back" in found else ()
        structures = tuple(lowest[place] for place in order)
        name = "Value" if variables[0].unit is None else f"Value ({variables[0].unit.get_symbol()})"
        progress = np.array([point.values[0] for point in structures])
        return Scan(mixed, structures, progress, name, variable=variables[0], forth=forth, back=back)
    rows = tuple(tuple(lowest[i, j] for j in range(len(grids[1]))) for i in range(len(grids[0])))
    differences = [
        abs((found["forth"][place].energy - found["back"][place].energy).value_in_unit(ENERGY))
        for place in order
        if "back" in found
    ]
    return GridScan(mixed, variables, grids, rows, max(differences) * ENERGY if differences else None)


def _variables(given: Variable | Sequence[Variable]) -> tuple[Variable, ...]:
    found = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not 1 <= len(found) <= 2:
        raise SettingError(f"a scan has one variable or two, got {len(found)}")
    wrong = [each for each in found if not isinstance(each, Variable)]
    if wrong:
        raise SettingError(f"variable is a collective variable, such as Distance(0, 1), got {shown(wrong[0])}")
    return found


def _centres(variables: tuple[Variable, ...], centres: object) -> tuple[FloatArray, ...]:
    given = (centres,) if len(variables) == 1 else centres
    if not isinstance(given, Sequence) or len(given) != len(variables):
        raise SettingError(f"centres has a list for each of the {len(variables)} variables")
    found = tuple(
        check_array("centres", each, (None,), variable.unit) for variable, each in zip(variables, given, strict=True)
    )
    for grid in found:
        if not len(grid) or len(np.unique(grid)) < len(grid):
            raise SettingError("centres has one value or more for each variable, all of them different")
    return found


def _force_constants(variables: tuple[Variable, ...], given: object) -> tuple[float, ...]:
    values = given if isinstance(given, list | tuple) else [given] * len(variables)
    if len(values) != len(variables):
        raise SettingError(f"force_constant has one value or {len(variables)}, got {len(values)}")
    found = []
    for variable, value in zip(variables, values, strict=True):
        name = "none" if variable.unit is None else variable.unit.get_name()
        if value is None:
            if name not in STIFFNESS:
                raise SettingError(
                    f"force_constant is needed for {type(variable).__name__}, in kJ/mol per square of its unit"
                )
            found.append(STIFFNESS[name])
            continue
        per = unit.kilojoule_per_mole if variable.unit is None else unit.kilojoule_per_mole / variable.unit**2
        found.append(check_quantity("force_constant", value, per, above=0.0))
    return tuple(found)


def _order(lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the places of a grid so that each is next to the one before."""
    if len(lengths) == 1:
        return [(k,) for k in range(lengths[0])]
    rows = range(lengths[1])
    return [(i, j) for i in range(lengths[0]) for j in (rows if i % 2 == 0 else reversed(rows))]
