"""Normal modes of a region, and initial conditions from their quantum distribution."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import NonFiniteError, SelectionError, listed
from qmmlmm.nonadiabatic.nuclei import check_context
from qmmlmm.setting_checks import check_atoms, check_instance, check_length, check_not_negative, check_quantity
from qmmlmm.units import (
    GAS_CONSTANT,
    HARTREE_IN_KJ_PER_MOL,
    HARTREE_IN_PER_CM,
    HBAR_IN_OPENMM,
    FloatArray,
    IntArray,
    Scalar,
)

FORCE = unit.kilojoule_per_mole / unit.nanometer
LONGEST_STEP = 0.05
"""Largest displacement of the central differences, nm."""

LOWEST = 100.0
"""Wave number, 1/cm, below which a mode has no quantum distribution: translations, rotations, and soft or unstable
directions of a geometry that is no minimum."""


@dataclass(frozen=True)
class NormalModes:
    """Normal modes of a region with all other atoms fixed.

    Parameters
    ----------
    atoms : (n,) int array
    masses : (n,) float array, Da
    positions : (n, 3) float array, nm
        Geometry at which they were computed.
    wave_numbers : (3 n,) float array, 1/cm
        Ascending; negative along unstable directions.
    vectors : (3 n, n, 3) float array
        Mass-weighted, orthonormal modes.
    """

    atoms: IntArray
    masses: FloatArray
    positions: FloatArray
    wave_numbers: FloatArray
    vectors: FloatArray

    @property
    def zero_point_energy(self) -> unit.Quantity:
        """Zero-point energy of the modes above 100 1/cm, kJ/mol."""
        real = self.wave_numbers[self.wave_numbers > LOWEST]
        return 0.5 * float(real.sum()) / HARTREE_IN_PER_CM * HARTREE_IN_KJ_PER_MOL * unit.kilojoule_per_mole

    def wigner_sample(
        self, random: np.random.Generator, temperature: Scalar = 0.0, lowest: float = LOWEST
    ) -> tuple[FloatArray, FloatArray]:
        """Return positions, (n, 3) nm, and velocities, (n, 3) nm/ps, from the Wigner distribution of harmonic modes.

        Parameters
        ----------
        random : numpy Generator
        temperature : Quantity or float, K
        lowest : float, 1/cm
            Modes below this wave number keep their positions and have no velocity.

        Notes
        -----
        With Q and P the mass-weighted coordinate and momentum of a mode of frequency w, at temperature T

            <Q^2> = hbar / (2 w) coth(hbar w / 2kT),    <P^2> = hbar w / 2 coth(hbar w / 2kT).

        Source: Wigner, Phys. Rev. 40, 749 (1932); Hillery et al., Phys. Rep. 106, 121 (1984).

        Raises
        ------
        SettingError
            If it is no generator, or a number is negative or not finite.
        """
        what = "a generator such as numpy.random.default_rng(1)"
        check_instance("random", random, np.random.Generator, what)
        kelvin = check_quantity("temperature", temperature, unit.kelvin, at_least=0.0)
        check_not_negative("lowest", lowest, "1/cm")
        chosen = self.wave_numbers > lowest
        # A quantum in kJ/mol, and the frequency in 1/ps.
        quanta = self.wave_numbers[chosen] / HARTREE_IN_PER_CM * HARTREE_IN_KJ_PER_MOL
        frequencies = quanta / HBAR_IN_OPENMM
        thermal = 2.0 * GAS_CONSTANT * kelvin
        broader = 1.0 / np.tanh(quanta / thermal) if kelvin > 0.0 else np.ones_like(quanta)
        displacements = random.normal(size=len(quanta)) * np.sqrt(0.5 * HBAR_IN_OPENMM / frequencies * broader)
        momenta = random.normal(size=len(quanta)) * np.sqrt(0.5 * HBAR_IN_OPENMM * frequencies * broader)
        roots = np.sqrt(self.masses)[:, None]
        shift = np.einsum("k,knx->nx", displacements, self.vectors[chosen]) / roots
        velocities = np.einsum("k,knx->nx", momenta, self.vectors[chosen]) / roots
        return self.positions + shift, velocities


def normal_modes(context: openmm.Context, atoms: Iterable[int], step: Scalar = 0.0005) -> NormalModes:
    """Return the normal modes of some atoms from central differences of the forces of a Context.

    Parameters
    ----------
    context : openmm.Context
        Context with positions at a minimum or near it; they are the same afterwards. All its forces count: QM, ML
        and MM, with the selected electronic state.
    atoms : iterable of int
    step : Quantity or float, nm
        Displacement of the central differences.

    Raises
    ------
    SelectionError
        If there are no atoms, they are no different indices, or one has no mass.
    SettingError
        If it is no Context with positions, or the step is out of range.
    NonFiniteError
        If forces are not finite numbers.
    """
    check_context("context", context)
    system = context.getSystem()
    chosen = np.array(sorted(check_atoms("atoms", atoms, system.getNumParticles())), dtype=np.int64)
    masses = np.array([system.getParticleMass(int(a)).value_in_unit(unit.dalton) for a in chosen])
    if not np.all(masses > 0.0):
        raise SelectionError(
            f"particles {listed(chosen[masses <= 0.0].tolist())} have no mass and no vibration; leave them out"
        )
    width = check_length("step", step, above=0.0, at_most=LONGEST_STEP)
    start = np.array(context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    hessian = np.empty((3 * len(chosen), 3 * len(chosen)))
    try:
        for row, (atom, axis) in enumerate((a, x) for a in chosen for x in range(3)):
            found = []
            for sign in (1.0, -1.0):
                moved = start.copy()
                moved[atom, axis] += sign * width
                context.setPositions(moved)
                forces = context.getState(forces=True).getForces(asNumpy=True).value_in_unit(FORCE)
                found.append(np.array(forces)[chosen].ravel())
            hessian[row] = (found[1] - found[0]) / (2.0 * width)
    finally:
        context.setPositions(start)
    if not np.isfinite(hessian).all():
        raise NonFiniteError("forces of the Context are not finite; set its positions, to a minimum or near it")
    weights = np.repeat(np.sqrt(masses), 3)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T) / np.outer(weights, weights))
    # 1/ps to 1/cm through the energy of a quantum.
    frequencies = np.sign(values) * np.sqrt(np.abs(values))
    wave_numbers = frequencies * HBAR_IN_OPENMM / HARTREE_IN_KJ_PER_MOL * HARTREE_IN_PER_CM
    return NormalModes(chosen, masses, start[chosen], wave_numbers, vectors.T.reshape(-1, len(chosen), 3))
