"""The response of functionals on kept basis values against PySCF's own code."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft, gto
from pyscf.grad import tdrks, tduks

from qmmlmm.qm.functional import response_integrator as integrator_module
from qmmlmm.qm.functional.response_integrator import ResponseIntegrator
from qmmlmm.qm.functional.third_derivatives import FiniteThirdDerivatives
from qmmlmm.qm.functional.two_grids import GridDifference

EXACT = 1e-9
"""Shares of the largest element: the same sums, and functions below 1e-11 left out."""

FORMALDEHYDE = "O 0 0.1 1.2; C 0 0 0; H 0.95 0.1 -0.6; H -0.9 0 -0.55"
METHODS = ["lda,vwn", "b3lyp", pytest.param("r2scan", marks=pytest.mark.slow)]


def field_of(method, spin=0):
    """A field with some orbitals, and two changes of each spin's density matrix without symmetry."""
    molecule = gto.M(atom=FORMALDEHYDE, basis="sto-3g", charge=spin, spin=spin, verbose=0)
    molecule.max_memory = 4000
    field = dft.UKS(molecule) if spin else dft.RKS(molecule)
    field.xc, field.grids.level = method, 0
    field._numint = FiniteThirdDerivatives()
    field.kernel()
    assert field.converged
    rng = np.random.default_rng(1)
    return field, rng.normal(size=((2,) if spin else ()) + (2, molecule.nao, molecule.nao))


def ours():
    return ResponseIntegrator(GridDifference(), 1e-9, 1e-8, 0.0)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=EXACT * abs(np.asarray(expected)).max())


@pytest.mark.parametrize("singlet", [None, True, False])
@pytest.mark.parametrize("method", METHODS)
def test_the_response_of_a_closed_shell_is_pyscfs(method, singlet):
    field, matrices = field_of(method)
    arguments = (field.mol, field.grids, method)
    found = []
    for integrator in (ours(), field._numint):
        kernel = integrator.cache_xc_kernel(*arguments, field.mo_coeff, field.mo_occ, int(singlet is not None))
        if singlet is None:
            found.append(integrator.nr_rks_fxc(*arguments, None, matrices, 0, 0, *kernel))
        else:
            found.append(integrator.nr_rks_fxc_st(*arguments, None, matrices, 0, singlet, *kernel))
    close(*found)


@pytest.mark.parametrize("method", METHODS)
def test_the_response_of_an_open_shell_is_pyscfs(method):
    field, matrices = field_of(method, 1)
    arguments = (field.mol, field.grids, method)
    for change in (matrices, matrices[:, 0]):
        found = []
        for integrator in (ours(), field._numint):
            kernel = integrator.cache_xc_kernel(*arguments, field.mo_coeff, field.mo_occ, 1)
            found.append(integrator.nr_uks_fxc(*arguments, None, change, 0, 0, *kernel))
        close(*found)


@pytest.mark.parametrize(("spin", "triplet"), [(0, False), (0, True), (1, False)])
@pytest.mark.parametrize("method", METHODS)
def test_the_potentials_of_a_state_are_pyscfs(method, spin, triplet):
    field, matrices = field_of(method, spin)
    transition, difference = (matrices[:, 0], matrices[:, 1]) if spin else matrices
    gradient = field.TDA().nuc_grad_method()
    difference = difference + np.swapaxes(difference, -1, -2)
    if spin:
        f1, f2, _, k = tduks._contract_xc_kernel(gradient, method, transition, difference)
        close(ours().state_potentials(field, transition, difference, False), (f1[:, 0], f2[:, 0] + 2.0 * k[:, 0]))
        return
    f1, f2, _, k = tdrks._contract_xc_kernel(gradient, method, transition, difference, singlet=not triplet)
    copies = 1.0 if triplet else 2.0
    first, second = ours().state_potentials(field, copies * transition[None], copies * difference[None], triplet)
    close((2.0 if triplet else 1.0) * first[0], f1[0])
    close(second[0], f2[0] + 2.0 * k[0])


def test_values_that_do_not_fit_into_the_free_memory_are_computed_in_each_pass(monkeypatch):
    field, matrices = field_of("b3lyp")
    kernel = field._numint.cache_xc_kernel(field.mol, field.grids, "b3lyp", field.mo_coeff, field.mo_occ)
    found = []
    for free in (4000.0, 0.0):
        monkeypatch.setattr(integrator_module.lib, "current_memory", lambda free=free: (field.mol.max_memory - free, 0))
        integrator = ours()
        for _ in range(2):
            found.append(integrator.nr_rks_fxc(field.mol, field.grids, "b3lyp", None, matrices, 0, 0, *kernel))
        assert bool(integrator._basis._kept) == (free > 0.0)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_what_has_no_kernel_is_left_to_pyscf():
    field, matrices = field_of("b3lyp")
    density = field.make_rdm1()
    arguments = (field.mol, field.grids, "b3lyp", density, matrices)
    np.testing.assert_array_equal(ours().nr_rks_fxc(*arguments), field._numint.nr_rks_fxc(*arguments))
