"""Excited determinants of their own: Delta-SCF with the maximum overlap method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pyscf import scf

from qmmlmm.errors import EvaluationError
from qmmlmm.qm.convergence import ScfRecord, converge
from qmmlmm.qm.density_history import JUMP, LEAST_OVERLAP
from qmmlmm.qm.excited import DeltaSCF
from qmmlmm.qm.state import ElectronicState, ground_state
from qmmlmm.units import FloatArray

COLLAPSED = 0.5
"""Squared overlap with the ground state from which on a determinant is the ground state."""

Orbitals = tuple[FloatArray, FloatArray]


class DeltaScfStates:
    """Ground state and one excited determinant of a region, at one geometry after another.

    Parameters
    ----------
    settings : DeltaSCF
    functional : str
        Method.
    state : int
        The state with the forces.
    term : str
        For messages.
    record : ScfRecord
        Cycles are counted in it.
    """

    def __init__(self, settings: DeltaSCF, functional: str, state: int, term: str, record: ScfRecord) -> None:
        self._settings = settings
        self._functional = functional
        self._state = state
        self._term = term
        self._record = record
        self._last: tuple[FloatArray, Orbitals] | None = None

    def select(self, state: int) -> None:
        """Let another state have the forces from now on."""
        self._state = state

    def forget(self) -> None:
        """Start anew, from the orbitals of the ground state."""
        self._last = None

    def memory(self) -> dict[str, FloatArray]:
        """Return the excited determinant of the last geometry as arrays."""
        if self._last is None:
            return {}
        positions, (up, down) = self._last
        return {"positions": positions, "occupied.0": up, "occupied.1": down}

    def recall(self, molecule: Any, memory: dict[str, FloatArray]) -> None:
        """Go on from what `memory` returned; the molecule is not used."""
        self._last = (memory["positions"], (memory["occupied.0"], memory["occupied.1"]))

    def energy(self, mean_field: Any, another: Any, save: Callable[[], str]) -> float:
        """Return the energy of the state from the orbitals of the ground state, in hartree; nothing is kept."""
        if self._state == 0:
            return float(mean_field.e_tot)
        self._converge(mean_field, another, self._excited_orbitals(mean_field), save)
        return float(another.e_tot)

    def solve(
        self, mean_field: Any, another: Any, save: Callable[[], str]
    ) -> tuple[ElectronicState, Callable[[], None]]:
        """Return the state with the forces, and what is called when the result is accepted.

        Parameters
        ----------
        mean_field : pyscf.scf.hf.SCF
            Converged, the ground state.
        another : pyscf.scf.uhf.UHF
            For the excited determinant: unrestricted, with the same operators.
        save : callable
            Saves the geometry and returns a sentence that says where.
        """
        positions = mean_field.mol.atom_coords()
        centred = positions - positions.mean(axis=0)
        reference = None
        if self._last is not None and np.linalg.norm(centred - self._last[0], axis=1).max() < JUMP:
            reference = _orthonormal(self._last[1], np.asarray(mean_field.get_ovlp()))
        if reference is None:
            reference = self._excited_orbitals(mean_field)
        outcome = self._converge(mean_field, another, reference, save)
        occupied = _occupied(another)
        state = ground_state(mean_field if self._state == 0 else another, self._functional)
        results: dict[str, object] = {
            "state": self._state,
            "state_energies": np.array([mean_field.e_tot, another.e_tot], dtype=float),
            "excited_scf_cycles": outcome["scf_cycles"],
        }
        if self._state == 1:
            results["s_squared"] = float(another.spin_square()[0])

        def accept() -> None:
            self._last = (centred, occupied)

        return ElectronicState(state.energy, state.gradient, state.density, state.spin_density, results), accept

    def _excited_orbitals(self, mean_field: Any) -> Orbitals:
        """Return the occupied orbitals of the ground state, one replaced by an empty one."""
        settings = self._settings
        orbitals, energies, occupations = _by_spin(mean_field)
        spin = 0 if settings.spin == "up" else 1
        found = []
        for index in range(2):
            order = np.argsort(energies[index], kind="stable")
            full = [k for k in order if occupations[index][k] > 0]
            empty = [k for k in order if occupations[index][k] == 0]
            if index == spin:
                if settings.hole >= len(full) or settings.particle >= len(empty):
                    raise EvaluationError(
                        f"{self._term}: DeltaSCF(hole={settings.hole}, particle={settings.particle}) needs an orbital "
                        f"that does not exist: of spin {settings.spin} {len(full)} are occupied and {len(empty)} empty"
                    )
                full[len(full) - 1 - settings.hole] = empty[settings.particle]
            found.append(orbitals[index][:, full])
        return found[0], found[1]

    def _converge(
        self, mean_field: Any, another: Any, reference: Orbitals, save: Callable[[], str]
    ) -> dict[str, object]:
        occupations = np.zeros((2, mean_field.mol.nao))
        for spin in range(2):
            occupations[spin, : reference[spin].shape[1]] = 1.0
        padded = [np.hstack([c, np.zeros((len(c), len(c) - c.shape[1]))]) for c in reference]
        scf.addons.mom_occ_(another, padded, occupations)
        density = np.array([c @ c.T for c in reference])
        # The hole and an occupied orbital may have almost the same energy. The diagonalisation that PySCF adds to a
        # converged field then mixes them by what is left of the gradient over the difference, and undoes convergence.
        another.conv_check = False
        outcome = converge(another, [("excited orbitals", density)], f"{self._term}, excited", save, self._record)
        another.mo_energy, another.mo_coeff = another.canonicalize(another.mo_coeff, another.mo_occ)
        overlap = np.asarray(another.get_ovlp())
        orbitals, _, filled = _by_spin(mean_field)
        kept = 1.0
        for spin, found in enumerate(_occupied(another)):
            kept *= float(np.linalg.det(found.T @ overlap @ orbitals[spin][:, filled[spin] > 0])) ** 2
        if kept > COLLAPSED:
            raise EvaluationError(
                f"{self._term}: the excited determinant fell back to the ground state (squared overlap {kept:.2f}); "
                f"{save()}. Choose another hole or particle, or use TDA"
            )
        return outcome


def _by_spin(mean_field: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return orbitals, energies and occupations of 0 or 1 for both spins."""
    arrays = [np.asarray(a) for a in (mean_field.mo_coeff, mean_field.mo_energy, mean_field.mo_occ)]
    if arrays[2].ndim == 1:
        arrays = [np.array([a, a]) for a in arrays]
        arrays[2] = (arrays[2] > 0).astype(float)
    return arrays[0], arrays[1], arrays[2]


def _occupied(mean_field: Any) -> Orbitals:
    orbitals, _, occupations = _by_spin(mean_field)
    return orbitals[0][:, occupations[0] > 0], orbitals[1][:, occupations[1] > 0]


def _orthonormal(orbitals: Orbitals, overlap: FloatArray) -> Orbitals | None:
    """Return orbitals of the last geometry made orthonormal at this one; None if they are far from it."""
    found = []
    for c in orbitals:
        values, vectors = np.linalg.eigh(c.T @ overlap @ c)
        if c.shape[1] and values.min() < LEAST_OVERLAP:
            return None
        found.append(c @ (vectors / np.sqrt(values)) @ vectors.T)
    return found[0], found[1]
