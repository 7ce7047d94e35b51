"""Amplitudes of electronic states along a step, and the hopping probabilities that follow from them.

Energies in kJ/mol, times in ps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qmmlmm.errors import EvaluationError
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL, HBAR_IN_OPENMM, FloatArray

ComplexArray = npt.NDArray[np.complex128]

LEAST_OVERLAP = 0.1
"""Smallest singular value of the overlaps between two steps at which the states are the same ones."""

DECOHERENCE_ENERGY = 0.1 * HARTREE_IN_KJ_PER_MOL


def orthonormal(overlaps: FloatArray) -> FloatArray:
    """Return the orthogonal matrix that is nearest to the overlaps.

    Raises
    ------
    EvaluationError
        If a state has little in common with all states before.
    """
    left, values, right = np.linalg.svd(overlaps)
    if not values.min() >= LEAST_OVERLAP:
        raise EvaluationError(
            f"the electronic states of two subsequent steps have little in common (smallest singular value of their "
            f"overlaps {values.min():.2g}): a state that was not computed before has come in, or the step is too long. "
            "Compute more states or take shorter steps"
        )
    return np.asarray(left @ right)


def diabatic_step(
    before: FloatArray, after: FloatArray, overlaps: FloatArray, duration: float, substeps: int
) -> list[ComplexArray]:
    """Return the propagator of one step by local diabatisation, between the adiabatic states of its two ends.

    Parameters
    ----------
    before, after : (m,) float array, kJ/mol
        Energies at the beginning and at the end.
    overlaps : (m, m) float array
        Overlaps of the states at the beginning, in rows, with those at the end.
    duration : float, ps
    substeps : int
    """
    turn = orthonormal(overlaps)
    shift = before.mean()
    first, last = np.diag(before - shift), (turn * (after - shift)) @ turn.T
    middles = (np.arange(substeps) + 0.5) / substeps
    hamiltonians = first + middles[:, None, None] * (last - first)
    whole = np.eye(len(before), dtype=complex)
    for piece in _exponentials(hamiltonians.astype(complex), duration / substeps):
        whole = piece @ whole
    return [np.asarray(turn.T @ whole, dtype=complex)]


def coupled_step(
    before: FloatArray, after: FloatArray, rates: tuple[FloatArray, FloatArray], duration: float, substeps: int
) -> list[ComplexArray]:
    """Return the propagators of the parts of one step, in adiabatic states.

    Parameters
    ----------
    before, after : (m,) float array, kJ/mol
    rates : two (m, m) float arrays, 1/ps
        Couplings times velocities, <i | d/dt j>, at the beginning and at the end.
    duration : float, ps
    substeps : int
    """
    middles = ((np.arange(substeps) + 0.5) / substeps)[:, None, None]
    shift = before.mean()
    first, last = np.diag(before - shift), np.diag(after - shift)
    rate = rates[0] + middles * (rates[1] - rates[0])
    hamiltonians = first + middles * (last - first) - 1j * HBAR_IN_OPENMM * rate
    return list(_exponentials(hamiltonians, duration / substeps))


def _exponentials(hamiltonians: ComplexArray, duration: float) -> ComplexArray:
    """Return exp(-i H t / hbar) of each matrix."""
    energies, vectors = np.linalg.eigh(hamiltonians)
    phases = np.exp(-1j * energies * (duration / HBAR_IN_OPENMM))
    return np.asarray((vectors * phases[:, None, :]) @ vectors.conj().transpose(0, 2, 1))


def propagate(
    amplitudes: ComplexArray, propagators: Sequence[ComplexArray], active: int
) -> tuple[ComplexArray, FloatArray]:
    """Return the amplitudes after a step, and the probability to hop from the active state to each other one.

    Notes
    -----
    For one propagator R, c' = R c, with k the active state (Plasser et al., J. Chem. Phys. 137, 22A514 (2012)),

        P_l = (1 - |c'_k|^2 / |c_k|^2) Re[c'_l R*_lk c*_k] / (|c_k|^2 - Re[c'_k R*_kk c*_k]),

    not below zero. It becomes Tully's where R is close to one. Probabilities of several propagators add up, weighted by
    the probability to be on k until then.
    """
    probabilities = np.zeros(len(amplitudes))
    staying = 1.0
    for propagator in propagators:
        after = propagator @ amplitudes
        flows = (after * propagator[:, active].conj() * amplitudes[active].conj()).real
        population = abs(amplitudes[active]) ** 2
        lost = population - abs(after[active]) ** 2
        leaving = population - flows[active]
        amplitudes = after
        if lost <= 0.0 or leaving <= 0.0:
            continue
        shares = np.clip(flows * (lost / (population * leaving)), 0.0, None)
        shares[active] = 0.0
        shares /= max(1.0, float(shares.sum()))
        probabilities += staying * shares
        staying *= 1.0 - float(shares.sum())
    return amplitudes, probabilities


def damped(
    amplitudes: ComplexArray, active: int, energies: FloatArray, kinetic_energy: float, duration: float
) -> ComplexArray:
    """Return the amplitudes after decoherence by energy during a step.

    Parameters
    ----------
    amplitudes : (m,) complex array
    active : int
    energies : (m,) float array, kJ/mol
    kinetic_energy : float, kJ/mol
        Kinetic energy of the atoms of the region.
    duration : float, ps
    """
    if kinetic_energy <= 0.0:
        return amplitudes
    gaps = np.abs(energies - energies[active])
    rates = gaps / HBAR_IN_OPENMM / (1.0 + DECOHERENCE_ENERGY / kinetic_energy)
    result = amplitudes * np.exp(-duration * rates)
    others = float((abs(result) ** 2).sum() - abs(result[active]) ** 2)
    now = abs(amplitudes[active])
    if now == 0.0:
        return amplitudes
    result[active] = amplitudes[active] * (np.sqrt(max(0.0, 1.0 - others)) / now)
    return np.asarray(result)
