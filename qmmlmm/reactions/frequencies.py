"""Normal modes of a region in held surroundings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from openmm import app, unit

from qmmlmm.errors import SettingError
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.hessian import hessian_on_surface
from qmmlmm.reactions.structure import Start, Structure
from qmmlmm.reactions.surface import SurfacePoint
from qmmlmm.reactions.thermochemistry import Thermochemistry, vibrational_thermochemistry
from qmmlmm.setting_checks import check_instance, check_length, check_path, check_positive, check_whole_number
from qmmlmm.units import ELECTRON_MASS_IN_DALTON, HARTREE_IN_PER_CM, NM_IN_BOHR, FloatArray, Scalar, Vectors

STEP = 0.0005
"""Displacement of the central differences, nm."""

LONGEST_STEP = 0.02

NEGATIVE = -20.0
"""Wave number, 1/cm, below which a mode counts as negative: less is within the noise of an optimisation."""

SINGULAR = 1e-6
"""Relative size of singular values that are zero: the third rotation of a linear molecule."""


@dataclass(frozen=True, eq=False)
class Frequencies:
    """Normal modes of some atoms with everything else held.

    Parameters
    ----------
    structure : Structure
    atoms : tuple of int
        Atoms that vibrate.
    masses : (n,) float array, Da
    hessian : (3 n, 3 n) float array, hartree/bohr^2
    wave_numbers : (n_modes,) float array, 1/cm
        Ascending; negative along unstable directions. Without surroundings the translations and rotations are left out;
        in surroundings all 3 n modes are here.
    vectors : (n_modes, n, 3) float array
        Mass-weighted, orthonormal modes.
    gradient : (n, 3) float array, hartree/bohr
        Gradient at the structure.
    """

    structure: Structure
    atoms: tuple[int, ...]
    masses: FloatArray
    hessian: FloatArray
    wave_numbers: FloatArray
    vectors: FloatArray
    gradient: FloatArray

    @property
    def n_negative(self) -> int:
        """Number of modes below -20 1/cm: none at a minimum, one at a saddle point."""
        return int((self.wave_numbers < NEGATIVE).sum())

    @property
    def zero_point_energy(self) -> unit.Quantity:
        """Half of the quanta of all modes with positive wave number, kJ/mol."""
        return self.thermochemistry().zero_point_energy

    def thermochemistry(self, temperature: Scalar = 298.15, *, quasi_harmonic: bool = True) -> Thermochemistry:
        """Return zero-point and thermal corrections, see `vibrational_thermochemistry`."""
        return vibrational_thermochemistry(self.wave_numbers, temperature, quasi_harmonic=quasi_harmonic)

    def displaced(self, mode: int, amplitude: float) -> FloatArray:
        """Return positions of all particles, (n_particles, 3) nm, along a mode.

        Parameters
        ----------
        mode : int
        amplitude : float, nm
            Largest displacement of an atom.
        """
        self._check_mode(mode)
        shift = self.vectors[mode] / np.sqrt(self.masses)[:, None]
        shift *= amplitude / np.linalg.norm(shift, axis=1).max()
        positions = np.array(self.structure.positions.value_in_unit(unit.nanometer))
        positions[list(self.atoms)] += shift
        return positions

    def write_mode(
        self, path: str | os.PathLike[str], mode: int = 0, *, amplitude: Scalar = 0.03, frames: int = 20
    ) -> None:
        """Write the vibration of a mode as a PDB file with one model for each frame.

        Parameters
        ----------
        path : path
        mode : int
            Place in `wave_numbers`.
        amplitude : Quantity or float, nm
            Largest displacement of an atom.
        frames : int
            Number of models of one period.

        Raises
        ------
        SettingError
            If there is no such mode, or a number is out of range.
        """
        self._check_mode(mode)
        target = check_path("path", path)
        largest = check_length("amplitude", amplitude, above=0.0)
        count = check_whole_number("frames", frames, at_most=1000)
        topology = self.structure.topology
        with target.open("w", encoding="utf-8") as file:
            app.PDBFile.writeHeader(topology, file)
            for frame in range(count):
                at = largest * np.sin(2.0 * np.pi * frame / count)
                positions = self.displaced(mode, at)
                app.PDBFile.writeModel(topology, positions * unit.nanometer, file, frame + 1, keepIds=True)
            app.PDBFile.writeFooter(topology, file)

    def _check_mode(self, mode: int) -> None:
        check_whole_number("mode", mode, at_least=0)
        if mode >= len(self.wave_numbers):
            raise SettingError(f"mode is from 0 to {len(self.wave_numbers) - 1}, got {mode}")


def frequencies(
    mixed: MixedSystem,
    positions: Start,
    *,
    atoms: Iterable[int] | str | None = None,
    hold: Iterable[int] | str | None = None,
    step: Scalar = STEP,
    executor: Executor | None = None,
    directory: str | os.PathLike[str] | None = None,
    box_vectors: Vectors | None = None,
    platform: str | None = None,
) -> Frequencies:
    """Return the normal modes of a region with everything else held, from central differences of gradients.

    Parameters
    ----------
    mixed : MixedSystem
    positions : Structure, (n_particles, 3) Quantity or array, nm
        Minimum or saddle point, such as the result of `optimise`.
    atoms : iterable of int or str, optional
        Atoms that vibrate, or a selection; those of a Structure or of all regions if not given.
    hold : iterable of int or str, optional
        Atoms of `atoms` that do not vibrate.
    step : Quantity or float, nm
        Displacement; each atom needs six gradients.
    executor : concurrent.futures.Executor, optional
        Executor that computes the gradients at the same time, such as a ProcessPoolExecutor.
    directory : path, optional
        Folder in which each gradient is kept: a calculation that was killed continues there.
    box_vectors : (3, 3) Quantity or array, nm, optional
    platform : str, optional
        OpenMM platform, see `EnergySurface`.

    Raises
    ------
    SelectionError, SettingError
        As `EnergySurface`.
    RunDirectoryError
        If the directory is in use, or has the Hessian of something else.
    EvaluationError
        If a term fails.
    """
    width = check_length("step", step, above=0.0, at_most=LONGEST_STEP)
    surface = EnergySurface(
        mixed, positions, atoms=atoms, hold=hold, relax=False, box_vectors=box_vectors, platform=platform
    )
    return frequencies_on_surface(surface, width, executor, directory, platform)


def frequencies_on_surface(
    surface: EnergySurface,
    step: float = STEP,
    executor: Executor | None = None,
    directory: str | os.PathLike[str] | None = None,
    platform: str | None = None,
) -> Frequencies:
    """Return the normal modes at the present coordinates of a surface, with held surroundings."""
    check_positive("step", step)
    check_executor(executor)
    folder = None if directory is None else check_path("directory", directory)
    point = surface.with_held_surroundings(surface.coordinates)
    hessian = hessian_on_surface(surface, step * NM_IN_BOHR, executor=executor, directory=folder, platform=platform)
    return frequencies_of_hessian(surface, point, hessian)


def check_executor(executor: Executor | None) -> None:
    """Raise SettingError if it is no executor; None is none."""
    if executor is not None:
        check_instance("executor", executor, Executor, "a concurrent.futures.Executor")


def frequencies_of_hessian(surface: EnergySurface, point: SurfacePoint, hessian: FloatArray) -> Frequencies:
    """Return the normal modes of a Hessian, (3 n, 3 n) hartree/bohr^2, of the atoms that are not held."""
    free = np.delete(np.arange(len(surface.atoms)), surface.held_among_atoms)
    masses = surface.masses[free]
    without_motion = surface.is_free and not surface.held_among_atoms
    basis = internal_basis(surface.coordinates[free], masses) if without_motion else np.eye(3 * len(free))
    wave_numbers, vectors = harmonic_modes(hessian, masses, basis)
    return Frequencies(
        surface.structure(point),
        tuple(surface.atoms[free].tolist()),
        masses,
        hessian,
        wave_numbers,
        vectors,
        point.gradient[free],
    )


def harmonic_modes(hessian: FloatArray, masses: FloatArray, basis: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return wave numbers, 1/cm, and mass-weighted modes, (n_modes, n, 3).

    Parameters
    ----------
    hessian : (3 n, 3 n) float array, hartree/bohr^2
    masses : (n,) float array, Da
    basis : (3 n, n_modes) float array
        Orthonormal mass-weighted displacements that the modes consist of.
    """
    weights = np.repeat(np.sqrt(masses / ELECTRON_MASS_IN_DALTON), 3)
    weighted = hessian / np.outer(weights, weights)
    values, vectors = np.linalg.eigh(basis.T @ weighted @ basis)
    wave_numbers = np.sign(values) * np.sqrt(np.abs(values)) * HARTREE_IN_PER_CM
    return wave_numbers, (basis @ vectors).T.reshape(len(values), -1, 3)


def internal_basis(coordinates: FloatArray, masses: FloatArray) -> FloatArray:
    """Return orthonormal mass-weighted displacements without translation and rotation, (3 n, 3 n - 6 or 5).

    Parameters
    ----------
    coordinates : (n, 3) float array, bohr
    masses : (n,) float array, Da
    """
    roots = np.sqrt(masses)[:, None]
    away = coordinates - masses @ coordinates / masses.sum()
    motions = [roots * axis for axis in np.eye(3)] + [roots * np.cross(axis, away) for axis in np.eye(3)]
    matrix = np.array([motion.ravel() for motion in motions])
    matrix /= np.linalg.norm(matrix, axis=1).max()
    _, sizes, right = np.linalg.svd(matrix, full_matrices=True)
    return np.asarray(right[int((sizes > SINGULAR * sizes.max()).sum()) :].T)
