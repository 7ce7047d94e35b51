"""Excited determinants: Delta-SCF with the maximum overlap method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pyscf import scf

from qmmlmm.coupling.potential import Memory
from qmmlmm.coupling.state_results import StateResults
from qmmlmm.errors import EvaluationError
from qmmlmm.qm.excited import DeltaSCF
from qmmlmm.qm.scf.convergence import converge
from qmmlmm.qm.scf.density_history import JUMP, LEAST_OVERLAP
from qmmlmm.qm.scf.reference import Reference
from qmmlmm.qm.states.electronic_state import ground_state
from qmmlmm.qm.states.state_solver import SolvedState, StateSolver
from qmmlmm.units import FloatArray

COLLAPSED = 0.5
"""Squared overlap with the ground state above which a determinant is the ground state."""

Orbitals = tuple[FloatArray, FloatArray]


class DeltaScfStates(StateSolver):
    """Ground state and one excited determinant of a region, at one geometry after another.

    Parameters
    ----------
    settings : DeltaSCF
    functional : str
        Method of the ground state.
    state : int
        Index of the state with energy and forces.
    term : str
        Name of the term, for messages.
    """

    def __init__(self, settings: DeltaSCF, functional: str, state: int, term: str) -> None:
        self._settings = settings
        self._functional = functional
        self._state = state
        self._term = term
        self._last: tuple[FloatArray, Orbitals] | None = None

    def select(self, state: int) -> None:
        """Select the state that has energy and forces from the next geometry on."""
        self._state = state

    def forget(self) -> None:
        """Reset: start from the orbitals of the ground state."""
        self._last = None

    def memory(self) -> Memory:
        """Return the excited determinant of the last geometry as arrays."""
        if self._last is None:
            return {}
        positions, (up, down) = self._last
        return {"positions": positions, "occupied.0": up, "occupied.1": down}

    def recall(self, molecule: Any, memory: Memory) -> None:
        """Continue from what `memory` returned."""
        self._last = (memory["positions"], (memory["occupied.0"], memory["occupied.1"]))

    def energy(self, reference: Reference) -> float:
        """Return the energy of the state from the orbitals of the ground state, hartree; nothing is kept."""
        mean_field = reference.converge()
        if self._state == 0:
            return float(mean_field.e_tot)
        another = reference.unrestricted()
        self._converge(reference, another, self._excited_orbitals(mean_field))
        return float(another.e_tot)

    def solve(self, reference: Reference) -> SolvedState:
        """Return the state that has energy and forces, see `StateSolver.solve`."""
        mean_field, another = reference.converge(), reference.unrestricted()
        positions = mean_field.mol.atom_coords()
        centred = positions - positions.mean(axis=0)
        start = None
        if self._last is not None and np.linalg.norm(centred - self._last[0], axis=1).max() < JUMP:
            start = _orthonormal(self._last[1], np.asarray(mean_field.get_ovlp()))
        if start is None:
            start = self._excited_orbitals(mean_field)
        outcome = self._converge(reference, another, start)
        occupied = _occupied(another)
        state = ground_state(mean_field if self._state == 0 else another, self._functional)
        results: dict[str, object] = {"excited_scf_cycles": outcome["scf_cycles"]}
        if self._state == 1:
            results["s_squared"] = float(another.spin_square()[0])
        states = StateResults(self._state, np.array([mean_field.e_tot, another.e_tot], dtype=float))

        def accept() -> None:
            self._last = (centred, occupied)

        return SolvedState(replace(state, results=results, states=states), accept)

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

    def _converge(self, reference: Reference, another: Any, start: Orbitals) -> dict[str, object]:
        """Converge the excited determinant from its orbitals."""
        mean_field, save = reference.mean_field, reference.save
        occupations = np.zeros((2, mean_field.mol.nao))
        for spin in range(2):
            occupations[spin, : start[spin].shape[1]] = 1.0
        padded = [np.hstack([c, np.zeros((len(c), len(c) - c.shape[1]))]) for c in start]
        scf.addons.mom_occ_(another, padded, occupations)
        density = np.array([c @ c.T for c in start])
        # If the hole and an occupied orbital have almost the same energy, the diagonalisation that PySCF adds to a
        # converged field mixes them, by the remaining gradient over the difference, and undoes convergence.
        another.conv_check = False
        outcome = converge(another, [("excited orbitals", density)], f"{self._term}, excited", save, reference.record)
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
    """Return orbitals of the last geometry made orthonormal at this one; None if they are linearly dependent."""
    found = []
    for c in orbitals:
        values, vectors = np.linalg.eigh(c.T @ overlap @ c)
        if c.shape[1] and values.min() < LEAST_OVERLAP:
            return None
        found.append(c @ (vectors / np.sqrt(values)) @ vectors.T)
    return found[0], found[1]
