"""The exchange-correlation energy of the full grid at the price of a coarse one.

Notes
-----
Energy E and potential V of the full grid (f) are replaced by those of a coarse one (c) and their difference, to first
order in the density matrix P about a reference P0:

    E(P) = E_c(P) + [E_f - E_c](P0) + tr (V_f - V_c)(P0) (P - P0),    V(P) = V_c(P) + (V_f - V_c)(P0).

V is the derivative of E, as the self-consistent field needs it. The error of V is of first order in P - P0 and that of
E of second order, times the difference of the two grids' second derivatives, which is small and is measured whenever
the reference changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf import dft
from pyscf.dft import numint

from qmmlmm.qm.functional.basis_on_grid import BasisOnGrid
from qmmlmm.qm.functional.densities import ORDERS, add_potential, density_values, evaluate, spin_densities
from qmmlmm.units import FloatArray

COARSE_LEVEL = 0
"""PySCF's level of the coarse grid."""

FIRST_DIFFERENCE = 1e-3
"""Norm of the change of V_f - V_c divided by that of P, hartree, before it is measured."""

POTENTIAL_SHARE = 0.03
"""Largest error of V, Frobenius norm, as a share of the tolerance of the orbitals' gradient."""

ENERGY_SHARE = 0.1
"""Largest error of E, as a share of the tolerance of the energy."""

LEAST_DISTANCE = 1e-4
"""Norm of the change of P below which round-off hides that of V_f - V_c, which is then not measured."""

SETTLED = 0.05
"""Share of the last change in the distance to P0 below which a new reference is worth its price."""


@dataclass
class GridDifference:
    """How much the two grids' second derivatives differ in a region; it changes little from geometry to geometry.

    Parameters
    ----------
    ratio : float
        Norm of the change of V_f - V_c divided by that of P, hartree.
    """

    ratio: float = FIRST_DIFFERENCE

    def measured(self, change: float, distance: float) -> None:
        """Update the ratio with a change of V_f - V_c over a distance of the density matrices."""
        if distance > LEAST_DISTANCE:
            self.ratio = change / distance

    def errors(self, distance: float) -> tuple[float, float]:
        """Return the estimated errors of V and E at a distance from the reference, hartree."""
        return self.ratio * distance, 0.5 * self.ratio * distance**2


class _Grid:
    """A grid, and the functional's energy and potential on it."""

    def __init__(self, grids: Any, kind: str, basis: BasisOnGrid) -> None:
        self._grids = grids
        self._basis = basis
        self._kind = kind

    def evaluate(self, integrator: Any, functional: str, density: FloatArray) -> tuple[float, float, FloatArray]:
        """Return the number of electrons, the energy and the potential in the shape of the density."""
        spins = spin_densities(density)
        electrons, energy = 0.0, 0.0
        potential = np.zeros((len(spins), *np.asarray(density).shape[-2:]))
        for block in self._basis.blocks():
            weights = self._grids.weights[block.start : block.stop]
            parts = [density_values(block, spin, self._kind, spin.applied(block, block.values[0])) for spin in spins]
            energies, derivatives = evaluate(integrator, functional, self._kind, parts)
            charges = weights * sum(part[0] for part in parts)
            electrons += float(charges.sum())
            energy += float(charges @ energies)
            for matrix, derivative in zip(potential, derivatives, strict=True):
                add_potential(matrix, block, weights * derivative)
        return electrons, energy, potential.reshape(np.asarray(density).shape)


@dataclass(frozen=True)
class _Reference:
    """A density matrix and the differences of the full from the coarse grid there."""

    density: FloatArray
    energy: float
    potential: FloatArray


class TwoGridIntegrator(numint.NumInt):
    """PySCF's numerical integrator, with two grids for the ground state's energy and potential.

    Everything else, such as response and non-local correlation, is PySCF's own.

    Parameters
    ----------
    difference : GridDifference
        What is known of the region, updated here.
    conv_tol, conv_tol_grad : float, hartree
        Change of the energy and gradient of the orbitals at which the field is converged.
    max_memory : float, MB
        Memory for the basis functions on the coarse grid.
    """

    _settled = SETTLED

    def __init__(self, difference: GridDifference, conv_tol: float, conv_tol_grad: float, max_memory: float) -> None:
        super().__init__()
        self._difference = difference
        self._limits = POTENTIAL_SHARE * conv_tol_grad, ENERGY_SHARE * conv_tol
        self._max_memory = max_memory
        self._grids: tuple[_Grid, _Grid] | None = None
        self._reference: _Reference | None = None
        self._last: FloatArray | None = None
        self._coarse = True
        self.full_evaluations = 0

    def nr_rks(self, mol, grids, xc_code, dms, relativity=0, hermi=1, max_memory=2000, verbose=None):  # type: ignore[no-untyped-def]
        """Return electrons, energy and potential, as PySCF."""
        kind = self._xc_type(xc_code)
        if not self._coarse or kind not in ORDERS or np.asarray(dms).ndim != 2 or hermi != 1:
            return super().nr_rks(mol, grids, xc_code, dms, relativity, hermi, max_memory, verbose)
        return self._evaluate(mol, grids, xc_code, kind, dms)

    def nr_uks(self, mol, grids, xc_code, dms, relativity=0, hermi=1, max_memory=2000, verbose=None):  # type: ignore[no-untyped-def]
        """Return electrons of each spin, energy and potentials, as PySCF."""
        kind = self._xc_type(xc_code)
        if not self._coarse or kind not in ORDERS or np.asarray(dms).ndim != 3 or hermi != 1:
            return super().nr_uks(mol, grids, xc_code, dms, relativity, hermi, max_memory, verbose)
        electrons, energy, potential = self._evaluate(mol, grids, xc_code, kind, dms)
        return np.array([electrons, electrons]) / 2.0, energy, potential

    def is_exact_enough(self, density: FloatArray) -> bool:
        """Return whether energy and potential at a density are those of the full grid within the limits."""
        if self._grids is None or not self._coarse:  # everything was PySCF's own
            return True
        return self._reference is not None and self._suffices(self._distance(density))

    def leave_out_coarse_grid(self) -> None:
        """Evaluate only the full grid from now on, by PySCF's own code."""
        self._coarse = False

    def renew(self) -> None:
        """Evaluate the full grid at the next density."""
        self._reference = None

    def _evaluate(self, mol: Any, grids: Any, functional: str, kind: str, density: FloatArray) -> Any:
        if self._grids is None:
            self._grids = self._created(mol, grids, kind)
        full, coarse = self._grids
        matrix = np.asarray(density)
        electrons, energy, potential = coarse.evaluate(self, functional, density)
        if self._needs_reference(matrix):
            before = self._reference
            electrons, exact, exact_potential = full.evaluate(self, functional, density)
            self.full_evaluations += 1
            self._reference = _Reference(matrix.copy(), exact - energy, exact_potential - potential)
            if before is not None:
                change = float(np.linalg.norm(self._reference.potential - before.potential))
                self._difference.measured(change, float(np.linalg.norm(matrix - before.density)))
        reference = self._reference
        assert reference is not None
        self._last = matrix.copy()
        energy += reference.energy + float(np.sum(reference.potential * (matrix - reference.density)))
        return electrons, energy, potential + reference.potential

    def _needs_reference(self, density: FloatArray) -> bool:
        if self._reference is None or self._last is None:
            return True
        distance = self._distance(density)
        if self._suffices(distance):
            return False
        return float(np.linalg.norm(density - self._last)) < self._settled * distance

    def _suffices(self, distance: float) -> bool:
        """Return whether both errors are below their limits."""
        return all(error < limit for error, limit in zip(self._difference.errors(distance), self._limits, strict=True))

    def _distance(self, density: FloatArray) -> float:
        assert self._reference is not None
        return float(np.linalg.norm(np.asarray(density) - self._reference.density))

    def _created(self, mol: Any, grids: Any, kind: str) -> tuple[_Grid, _Grid]:
        coarse = dft.gen_grid.Grids(mol)
        coarse.level = min(COARSE_LEVEL, grids.level)
        coarse.verbose = 0
        coarse.build()
        on_coarse = BasisOnGrid(mol, coarse.coords, ORDERS[kind], self._max_memory)
        return _Grid(grids, kind, self._full_basis(mol, grids, kind)), _Grid(coarse, kind, on_coarse)

    def _full_basis(self, mol: Any, grids: Any, kind: str) -> BasisOnGrid:
        # The full grid is evaluated once or twice: its basis functions are not worth the memory.
        return BasisOnGrid(mol, grids.coords, ORDERS[kind])
