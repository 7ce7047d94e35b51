"""Crossings of states of different spin along a trajectory, for Landau-Zener spin flips."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from openmm import unit

from qmmlmm.errors import HamiltonianError, SettingError
from qmmlmm.nonadiabatic.surfaces import SurfacePoint
from qmmlmm.setting_checks import check_array
from qmmlmm.units import (
    HARTREE_IN_KJ_PER_MOL,
    HARTREE_IN_PER_CM,
    HBAR_IN_OPENMM,
    FloatArray,
    IntArray,
    Scalar,
    Vectors,
)

SpinOrbit = unit.Quantity | float | FloatArray | Callable[[Mapping[str, Mapping[str, object]]], Vectors]
"""A coupling, or a function that returns one from the results of all terms by name."""


def landau_zener_flip(coupling: Scalar, rate: Vectors) -> FloatArray:
    """Return the probability that the spin flips at a crossing.

    Parameters
    ----------
    coupling : Quantity or float, kJ/mol
        Spin-orbit coupling of both states: an energy, or a wave number such as ``40 / unit.centimeter``.
    rate : Quantity, float or float array, kJ/(mol ps)
        Rate at which the energies of both states cross, |d(E_1 - E_2)/dt|.

    Raises
    ------
    SettingError
        If the rate is no number, or zero.
    HamiltonianError
        If the coupling is no energy.

    Notes
    -----
    Zener, Proc. R. Soc. Lond. A 137, 696 (1932): 1 - exp(-2 pi V^2 / (hbar rate)); see `LandauZener`.

    Examples
    --------
    >>> print(f"{landau_zener_flip(100 / unit.centimeter, 1000.0):.3f}")
    0.132
    """
    speed = np.abs(check_array("rate", rate, default=unit.kilojoule_per_mole / unit.picosecond))
    if not (speed > 0.0).all():
        raise SettingError(f"rate is not zero, got {rate!r}: energies that do not change do not cross")
    return np.asarray(-np.expm1(-2.0 * np.pi * _in_kj_per_mol(coupling) ** 2 / (HBAR_IN_OPENMM * speed)))[()]


def flip_probabilities(old: SurfacePoint, new: SurfacePoint, active: int, step: float) -> FloatArray:
    """Return the probability to flip the spin from the active state to each other one in the step between two points.

    Parameters
    ----------
    old, new : SurfacePoint
        States at the beginning and at the end of the step.
    active : int
    step : float, ps

    Notes
    -----
    Zero for states of the same multiplicity, and unless the states cross within the step. See `LandauZener`.
    """
    probabilities = np.zeros(len(new.energies))
    if new.multiplicities is None or new.spin_orbit is None:
        return probabilities
    before, after = (point.energies - point.energies[active] for point in (old, new))
    # A gap of zero at the end counts as crossed, and not again at the beginning of the next step.
    crossed = (before * after <= 0.0) & (before != 0.0) & (new.multiplicities != new.multiplicities[active])
    rate = abs(after - before)[crossed] / step
    probabilities[crossed] = landau_zener_flip(new.spin_orbit[active][crossed], rate)
    return probabilities / max(1.0, float(probabilities.sum()))


def spin_orbit_matrix(given: Vectors, multiplicities: IntArray) -> FloatArray:
    """Return spin-orbit couplings as a matrix, (m, m) kJ/mol.

    Parameters
    ----------
    given : Quantity, float or (m, m) array, kJ/mol
        An energy or a wave number such as ``40 / unit.centimeter``; a bare number is in kJ/mol. A number is the
        coupling of all states whose multiplicities differ by two; a matrix is symmetric.
    multiplicities : (m,) int array

    Raises
    ------
    HamiltonianError
        If it is neither.
    """
    values = _in_kj_per_mol(given)
    count = len(multiplicities)
    differ = abs(multiplicities[:, None] - multiplicities[None])
    if values.ndim == 0:
        # Spin-orbit coupling is a vector operator in spin: S changes by one at most.
        values = np.where(differ == 2, values, 0.0)
    if (
        values.shape != (count, count)
        or not np.isfinite(values).all()
        or (values < 0.0).any()
        or not np.allclose(values, values.T)
    ):
        raise HamiltonianError(
            f"the spin-orbit coupling of {count} states is a number or a symmetric matrix of {count} by {count}, "
            f"finite and not negative, as an energy or in 1/cm; got {given!r}"
        )
    return np.where(differ == 0, 0.0, values)


def _in_kj_per_mol(given: Vectors) -> FloatArray:
    wave_number = unit.centimeter**-1
    try:
        if isinstance(given, unit.Quantity) and given.unit.is_compatible(wave_number):
            found = check_array("spin_orbit", given, default=wave_number)
            return found * (HARTREE_IN_KJ_PER_MOL / HARTREE_IN_PER_CM)
        return check_array("spin_orbit", given, default=unit.kilojoule_per_mole)
    except SettingError as error:
        raise HamiltonianError(
            f"a spin-orbit coupling is an energy in kJ/mol, a Quantity, or a wave number such as "
            f"40 / unit.centimeter; got {given!r}"
        ) from error
