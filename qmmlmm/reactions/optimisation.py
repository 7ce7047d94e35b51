"""Minima of a region in its surroundings."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from openmm import unit

from qmmlmm.errors import QmmlmmWarning
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.internal_coordinates import Thresholds, check_walk, minimised
from qmmlmm.reactions.structure import Start, Structure
from qmmlmm.reactions.surface import TOLERANCE, OptimisedSurface, SurfacePoint
from qmmlmm.setting_checks import check_instance
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, FloatArray, Scalar, Vectors

REPEATS = 3
"""Number of times that an optimisation continues if a new evaluation at its end finds forces that are too large."""


@dataclass(frozen=True, eq=False)
class Optimum(Structure):
    """A minimum, with the way to it.

    Parameters
    ----------
    converged : bool
        Whether all thresholds are fulfilled, by a new evaluation at the end.
    energies : (n_steps,) Quantity, kJ/mol
        Potential energy of the whole System at each step.
    steps : (n_steps, n_atoms, 3) Quantity, nm
        Positions of `atoms` at each step.
    evaluations : int
        Number of evaluations of the terms: QM calls.
    largest_force : Quantity, kJ/(mol nm)
        Largest force on an atom of `atoms` that is not held.
    surroundings_force : Quantity, kJ/(mol nm)
        Root mean square force on the surroundings.

    Notes
    -----
    The other parameters are those of `Structure`; `energy` is from the new evaluation.
    """

    converged: bool = True
    energies: unit.Quantity = None
    steps: unit.Quantity = None
    evaluations: int = 0
    largest_force: unit.Quantity = None
    surroundings_force: unit.Quantity = None


def optimise(
    mixed: MixedSystem,
    positions: Start,
    *,
    atoms: Iterable[int] | str | None = None,
    hold: Iterable[int] | str | None = None,
    relax: bool = True,
    thresholds: Thresholds | None = None,
    coordinates: str = "tric",
    max_steps: int = 300,
    tolerance: Scalar = TOLERANCE,
    box_vectors: Vectors | None = None,
    platform: str | None = None,
) -> Optimum:
    """Return the nearest minimum of the region, with its surroundings relaxed at every step.

    geomeTRIC moves the region in internal coordinates. Between its steps OpenMM relaxes the surroundings in the field
    of charges fitted to the region's density, without QM calls. See `EnergySurface`.

    Parameters
    ----------
    mixed : MixedSystem
    positions : Structure, (n_particles, 3) Quantity or array, nm
        Start.
    atoms : iterable of int or str, optional
        Atoms that move in internal coordinates, or a selection; the atoms of all regions if not given.
    hold : iterable of int or str, optional
        Atoms that do not move at all, or a selection, of whole residues.
    relax : bool
        Whether all other atoms are relaxed, or held.
    thresholds : Thresholds, optional
    coordinates : {"tric", "dlc", "hdlc", "cart"}
        Internal coordinates; translation-rotation coordinates are for several molecules.
    max_steps : int
    tolerance : Quantity or float, kJ/(mol nm)
        Root mean square force of relaxed surroundings.
    box_vectors : (3, 3) Quantity or array, nm, optional
    platform : str, optional
        OpenMM platform, see `EnergySurface`.

    Returns
    -------
    Optimum
        With `converged`; a warning says if it is False.

    Raises
    ------
    SelectionError, SettingError, UnsupportedSystemError
        As `EnergySurface`.
    EvaluationError
        If a term or geomeTRIC fails.
    MissingDependencyError
        If geomeTRIC is not installed.
    """
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
    return optimised(surface, thresholds, coordinates, max_steps, title="optimisation")


def optimised(
    surface: OptimisedSurface,
    thresholds: Thresholds | None = None,
    coordinates: str = "tric",
    max_steps: int = 300,
    *,
    warn: bool = True,
    title: str | None = None,
    leave: bool = True,
) -> Optimum:
    """Return the nearest minimum on a surface, from its present coordinates; the parameters are those of `optimise`."""
    limits = Thresholds() if thresholds is None else check_instance("thresholds", thresholds, Thresholds)
    coordinates_seen: list[FloatArray] = []
    energies: list[FloatArray] = []
    before = surface.evaluations
    for _ in range(REPEATS):
        walk = minimised(
            surface,
            surface.coordinates,
            frozen=surface.held_among_atoms,
            coordinates=coordinates,
            thresholds=limits,
            max_steps=max_steps,
            free=surface.is_free,
            title=title,
            leave=leave,
        )
        coordinates_seen.append(walk.coordinates)
        energies.append(walk.energies)
        point, rest = surface.verified()
        largest = largest_gradient(surface, point)
        converged = walk.converged and fulfilled(surface, point, rest, limits)
        if converged or not walk.converged:
            break
    if not converged and warn:
        warnings.warn(
            f"no minimum after {surface.evaluations - before} evaluations: the largest force on a moving atom is "
            f"{largest:.1e} hartree/bohr, and {limits.largest_gradient:.1e} is the threshold. Continue from this "
            "result, raise max_steps, or choose coordinates='cart' where internal coordinates break down",
            QmmlmmWarning,
            stacklevel=3,
        )
    return optimum(surface, point, rest, converged, coordinates_seen, energies, surface.evaluations - before)


def optimum(
    surface: OptimisedSurface,
    point: SurfacePoint,
    rest: float,
    converged: bool,
    coordinates: Sequence[FloatArray],
    energies: Sequence[FloatArray],
    evaluations: int,
) -> Optimum:
    """Return the record of an optimisation on a surface."""
    found = surface.structure(point)
    force = unit.kilojoule_per_mole / unit.nanometer
    return Optimum(
        **vars(found),
        converged=converged,
        energies=np.concatenate(energies) * HARTREE_IN_KJ_PER_MOL * unit.kilojoule_per_mole,
        steps=(np.concatenate(coordinates) * unit.bohr).in_units_of(unit.nanometer),
        evaluations=evaluations,
        largest_force=largest_gradient(surface, point) * FORCE_AU_IN_OPENMM * force,
        surroundings_force=rest * force,
    )


def largest_gradient(surface: OptimisedSurface, point: SurfacePoint) -> float:
    """Return the largest gradient of an atom that is not held, hartree/bohr."""
    lengths = np.linalg.norm(point.gradient, axis=1)
    return float(np.delete(lengths, surface.held_among_atoms).max())


def fulfilled(surface: OptimisedSurface, point: SurfacePoint, rest: float, thresholds: Thresholds) -> bool:
    """Return whether a new evaluation confirms the end of an optimisation.

    The region's gradient may exceed its threshold by half: geomeTRIC counts it without its part along frozen atoms.
    """
    return (
        largest_gradient(surface, point) < 1.5 * thresholds.largest_gradient
        and rest < thresholds.rms_gradient * FORCE_AU_IN_OPENMM
    )
