"""PySCF's numerical integrator with the response of the functional on basis values that are kept.

Notes
-----
The potential from a change of the density depends only on the symmetric part of the density matrix, for real functions,
and is symmetric. All matrices of a call share one pass over the grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import lib

from qmmlmm.qm.functional.basis_on_grid import BasisOnGrid
from qmmlmm.qm.functional.densities import ORDERS, SpinDensity, add_potential, density_values, spin_densities
from qmmlmm.qm.functional.response_kernel import response_kernel
from qmmlmm.qm.functional.third_derivatives import FiniteThirdDerivatives
from qmmlmm.qm.functional.two_grids import TwoGridIntegrator
from qmmlmm.units import FloatArray

FREE_SHARE = 0.6
"""Share of the free memory for the basis functions on the full grid, next to that of the repulsion integrals."""

SETTLED = 0.3
"""As that of two grids, where the full one is at hand: references that come sooner keep the number of cycles."""


class ResponseIntegrator(FiniteThirdDerivatives, TwoGridIntegrator):
    """PySCF's numerical integrator for excited states: two grids for the ground state, kept values for the response.

    Its parameters are those of `TwoGridIntegrator`.
    """

    _settled = SETTLED
    _basis: BasisOnGrid | None = None

    def cache_xc_kernel(self, mol, grids, xc_code, mo_coeff, mo_occ, spin=0, max_memory=2000):  # type: ignore[no-untyped-def]
        """Return densities and first and second derivatives, as PySCF."""
        kind = self._xc_type(xc_code)
        if kind not in ORDERS:
            return super().cache_xc_kernel(mol, grids, xc_code, mo_coeff, mo_occ, spin, max_memory)
        densities = []
        for c, n in [(mo_coeff, mo_occ)] if np.ndim(mo_occ) == 1 else zip(mo_coeff, mo_occ, strict=True):
            factor = c[:, n > 0] * np.sqrt(n[n > 0])
            spin_density = SpinDensity(factor @ factor.T, factor)
            parts = [
                density_values(block, spin_density, kind, spin_density.applied(block, block.values[0]))
                for block in self._full_basis(mol, grids, kind).blocks()
            ]
            densities.append(np.hstack(parts))
        if len(densities) == 1 and spin == 1:
            densities = [0.5 * densities[0]] * 2
        rho = np.array(densities) if spin == 1 else densities[0]
        if kind == "LDA":
            rho = rho[..., 0, :]
        v, f = self.eval_xc_eff(xc_code, rho, deriv=2, xctype=kind, spin=spin)[1:3]
        return rho, v, f

    def nr_rks_fxc(  # type: ignore[no-untyped-def]
        self,
        mol,
        grids,
        xc_code,
        dm0=None,
        dms=None,
        relativity=0,
        hermi=0,
        rho0=None,
        vxc=None,
        fxc=None,
        max_memory=2000,
        verbose=None,
    ):
        """Return the change of the potential by each density matrix, as PySCF."""
        kind = self._xc_type(xc_code)
        if kind not in ORDERS or fxc is None or np.iscomplexobj(dms):
            return super().nr_rks_fxc(
                mol, grids, xc_code, dm0, dms, relativity, hermi, rho0, vxc, fxc, max_memory, verbose
            )
        matrices = np.asarray(dms)
        return self._response(mol, grids, kind, matrices[None], np.asarray(fxc)[None, :, None])[0]

    def nr_uks_fxc(  # type: ignore[no-untyped-def]
        self,
        mol,
        grids,
        xc_code,
        dm0=None,
        dms=None,
        relativity=0,
        hermi=0,
        rho0=None,
        vxc=None,
        fxc=None,
        max_memory=2000,
        verbose=None,
    ):
        """Return the change of the potentials by the density matrices of both spins, as PySCF."""
        kind = self._xc_type(xc_code)
        if kind not in ORDERS or fxc is None or np.iscomplexobj(dms):
            return super().nr_uks_fxc(
                mol, grids, xc_code, dm0, dms, relativity, hermi, rho0, vxc, fxc, max_memory, verbose
            )
        return self._response(mol, grids, kind, np.asarray(dms), np.asarray(fxc))

    def state_potentials(
        self, mean_field: Any, transition: FloatArray, difference: FloatArray, triplet: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Return the potentials that the functional adds to the equations for the relaxed density.

        Parameters
        ----------
        mean_field : pyscf.dft.rks.RKS or pyscf.dft.uks.UKS
        transition : (s, n_ao, n_ao) float array
            Transition density matrix of X + Y: of both spins together, or of spin up, or of each spin.
        difference : (s, n_ao, n_ao) float array
            Twice the unrelaxed density matrix of the state minus that of the reference.
        triplet : bool
            Whether the matrices are those of spin up, and the transition density of spin down is the opposite.

        Returns
        -------
        (s, n_ao, n_ao) float array, hartree
            Potential of the transition density.
        (s, n_ao, n_ao) float array, hartree
            That of the difference density, plus twice that in second order of the transition density.
        """
        grids, functional = mean_field.grids, mean_field.xc
        kind = self._xc_type(functional)
        ground = spin_densities(mean_field.make_rdm1())
        if triplet:
            ground = [part.scaled(0.5) for part in ground]
        others = [_symmetric(transition), _symmetric(difference)]
        found = np.zeros((2, *transition.shape))
        for block in self._full_basis(mean_field.mol, grids, kind).blocks():
            weights = grids.weights[block.start : block.stop]
            values = [density_values(block, spin, kind, spin.applied(block, block.values[0])) for spin in ground]
            kernel = response_kernel(self, functional, kind, values, triplet)
            of_transition, of_difference = (_values(block, matrices, kind) for matrices in others)
            first = kernel.respond_to_transition(of_transition)
            second = kernel.respond(of_difference) + 2.0 * kernel.respond_twice(of_transition)
            for matrices, potentials in zip(found, (first, second), strict=True):
                for matrix, potential in zip(matrices, potentials, strict=True):
                    add_potential(matrix, block, weights * potential)
        return found[0], found[1]

    def _response(self, mol: Any, grids: Any, kind: str, matrices: FloatArray, kernel: FloatArray) -> FloatArray:
        """Return potentials in the shape of the density matrices, (s, ..., n_ao, n_ao), by a kernel (s, c, s, c, g)."""
        n = mol.nao
        flat = _symmetric(matrices.reshape(len(matrices), -1, n, n))
        found = np.zeros_like(flat)
        for block in self._full_basis(mol, grids, kind).blocks():
            part = slice(block.start, block.stop)
            weighted = kernel[..., part] * grids.weights[part]
            for k in range(flat.shape[1]):
                potentials = np.einsum("axbyg,byg->axg", weighted, _values(block, flat[:, k], kind))
                for matrix, potential in zip(found[:, k], potentials, strict=True):
                    add_potential(matrix, block, potential)
        return found.reshape(matrices.shape)

    def _full_basis(self, mol: Any, grids: Any, kind: str) -> BasisOnGrid:
        if self._basis is None:
            free = mol.max_memory - lib.current_memory()[0]
            # PySCF keeps the integrals later, if this much is free then; to compute them again takes longer than these.
            integrals = 1e-6 * mol.nao**4
            free -= integrals if integrals < free else 0.0
            self._basis = BasisOnGrid(mol, grids.coords, ORDERS[kind], FREE_SHARE * free)
        return self._basis


def _values(block: Any, matrices: FloatArray, kind: str) -> FloatArray:
    """Return the densities of symmetric matrices of each spin on a block, (s, c, g)."""
    spins = [SpinDensity(matrix) for matrix in matrices]
    return np.array([density_values(block, spin, kind, spin.applied(block, block.values[0])) for spin in spins])


def _symmetric(matrices: FloatArray) -> FloatArray:
    return 0.5 * (matrices + np.swapaxes(matrices, -1, -2))
