"""Full CI of one multiplicity in an active space."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from pyscf import fci

from qmmlmm.qm.excited import spin_states
from qmmlmm.units import FloatArray

SPIN_PENALTY = 0.5
"""Shift of other multiplicities in Davidson's iterations, hartree times the excess of S^2."""

SPIN_ERROR = 0.01
"""Largest error of S^2; with a larger one a state has another multiplicity."""

DENSE = 400
"""Largest number of determinants (six electrons in six orbitals) for which an active space is diagonalised as a
whole."""

MORE = 3
"""Additional states in the first Davidson diagonalisation, so that none is missed."""

MIXTURE = 0.1
"""Share of all determinants in each of its guesses: iterations miss states of a symmetry that no guess has."""


class FullCI(fci.direct_spin1.FCISolver):
    """States of one multiplicity, as a solver for CASSCF.

    Notes
    -----
    PySCF's `fix_spin_` shifts other multiplicities by a penalty and iterates from single determinants. A high state can
    then be above the lowest shifted triplet (all three singlets of H2 in two orbitals), and a degenerate state or one
    of a symmetry that no guess has is missed (the second of the first excited triplets of O2). This class diagonalises
    a small active space as a whole, in a basis of eigenfunctions of S^2: no penalty, no guess. For a large one the
    first iterations start from determinants with a share of all others, and compute more states than they return.
    """

    _keys = frozenset({"multiplicity"})
    multiplicity = 1
    converged: Any

    def kernel(
        self,
        h1e: FloatArray,
        eri: FloatArray,
        norb: int,
        nelec: Any,
        ci0: Any = None,
        *,
        ecore: float = 0.0,
        nroots: int | None = None,
        **keywords: Any,
    ) -> tuple[Any, Any]:
        """Return energies and vectors: lists, or one of each if there is one state."""
        count = self.nroots if nroots is None else nroots
        nelec = fci.addons._unpack_nelec(nelec, self.spin)
        up, down = (int(n) for n in nelec)
        shape = (fci.cistring.num_strings(norb, up), fci.cistring.num_strings(norb, down))
        energies: Any
        vectors: Any
        if shape[0] * shape[1] <= DENSE:
            energies, vectors = self._whole(h1e, eri, norb, (up, down))
            energies = energies + ecore
            self.norb, self.nelec, self.converged = norb, nelec, [True] * count
        else:
            found = count
            if ci0 is None:
                found = min(count + MORE, spin_states(up + down, norb, self.multiplicity))
            energies, vectors = super().kernel(
                h1e, eri, norb, nelec, ci0, ecore=ecore, nroots=found, pspace_size=0, **keywords
            )
            energies, vectors = np.atleast_1d(energies), vectors if found > 1 else [vectors]
            self.converged = list(np.atleast_1d(self.converged))[:count]
        energies = energies[:count]
        vectors = [np.array(vector).reshape(shape) for vector in vectors[:count]]
        if count == 1:
            energies, vectors, self.converged = energies[0], vectors[0], bool(self.converged[0])
        self.eci, self.ci = energies, vectors
        return energies, vectors

    def get_init_guess(self, norb: int, nelec: Any, nroots: int, hdiag: FloatArray) -> list[FloatArray]:
        """Return vectors with the lowest determinants and a share of all others."""
        up, down = fci.addons._unpack_nelec(nelec, self.spin)
        shape = (fci.cistring.num_strings(norb, up), fci.cistring.num_strings(norb, down))
        energies = np.asarray(hdiag).reshape(shape)
        # Exchange of both spins keeps a singlet and turns the sign of a triplet with M = 0.
        sign = 0.0 if up != down else 1.0 if self.multiplicity % 4 == 1 else -1.0
        rows, columns = np.indices(shape).reshape(2, -1)
        if sign:
            rows, columns = np.tril_indices(shape[0], 0 if sign > 0.0 else -1)
        order = np.argsort(energies[rows, columns], kind="stable")[:nroots]
        random = np.random.default_rng(0)
        found: list[FloatArray] = []
        for row, column in zip(rows[order], columns[order], strict=True):
            vector = MIXTURE * random.normal(size=shape) / np.sqrt(energies.size)
            vector[row, column] += 1.0
            if sign:
                vector = vector + sign * vector.T
            found.append((vector / np.linalg.norm(vector)).ravel())
        return found

    def _whole(
        self, h1e: FloatArray, eri: FloatArray, norb: int, nelec: tuple[int, int]
    ) -> tuple[FloatArray, FloatArray]:
        """Return all energies, and all vectors in rows."""
        basis = spin_functions(norb, *nelec, self.multiplicity)
        _, hamiltonian = self.pspace(h1e, eri, norb, nelec, np=len(basis))
        energies, turned = np.linalg.eigh(basis.T @ hamiltonian @ basis)
        return energies, (basis @ turned).T


@lru_cache(maxsize=16)
def spin_functions(n_orbitals: int, up: int, down: int, multiplicity: int) -> FloatArray:
    """Return an orthonormal basis of one multiplicity, in determinants: (n_determinants, n_functions)."""
    shape = (fci.cistring.num_strings(n_orbitals, up), fci.cistring.num_strings(n_orbitals, down))
    size = shape[0] * shape[1]
    squares = np.array(
        [
            np.ravel(fci.spin_op.contract_ss(one.reshape(shape), n_orbitals, (up, down)))
            for one in np.eye(size)  # S^2 on each determinant
        ]
    )
    values, vectors = np.linalg.eigh(squares)
    return np.asarray(vectors[:, abs(values - spin_square(multiplicity)) < 0.5])


def spin_square(multiplicity: int) -> float:
    """Return S (S + 1)."""
    return 0.25 * (multiplicity - 1) * (multiplicity + 1)


def full_ci(
    molecule: Any, n_orbitals: int, n_electrons: tuple[int, int], multiplicity: int, tolerance: float, max_cycle: int
) -> Any:
    """Return a solver for CASSCF.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
    n_orbitals : int
    n_electrons : (int, int)
        Numbers of electrons with spin up and down.
    multiplicity : int
    tolerance : float, hartree
        Tolerance of Davidson's iterations.
    max_cycle : int
        Largest number of iterations of each diagonalisation.
    """
    solver = FullCI(molecule)
    solver.verbose = 0
    solver.multiplicity = multiplicity
    solver.conv_tol = tolerance
    solver.max_cycle = max_cycle
    up, down = (fci.cistring.num_strings(n_orbitals, n) for n in n_electrons)
    if up * down <= DENSE:
        # Without the penalty, products with the Hamiltonian take a third of the time, and so does the response.
        return solver
    return fci.addons.fix_spin_(solver, shift=SPIN_PENALTY, ss=spin_square(multiplicity))
