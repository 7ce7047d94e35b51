"""Gradients of functionals and of fitted integrals against PySCF's own code and against differences."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft, gto, scf
from pyscf.grad import rks, uks

from qmmlmm.qm.functional import fitted_gradient as fitted_module
from qmmlmm.qm.functional.becke_weights import BeckeWeights
from qmmlmm.qm.functional.densities import spin_densities
from qmmlmm.qm.functional.fitted_gradient import fitted_gradient
from qmmlmm.qm.functional.functional_gradient import functional_gradient
from qmmlmm.qm.functional.two_electron_gradient import two_electron_gradient

EXACT = 1e-11
"""hartree/bohr: the same sums in another order, and functions below 1e-11 left out."""

FORMALDEHYDE = "O 0 0.1 1.2; C 0 0 0; H 0.95 0.1 -0.6; H -0.9 0 -0.55"
METHODS = {"lda,vwn": "LDA", "b3lyp": "GGA", "r2scan": "MGGA"}


def molecule(charge=0, basis="6-31g"):
    atoms = gto.M(atom=FORMALDEHYDE, basis=basis, charge=charge, spin=charge, verbose=0)
    atoms.max_memory = 4000
    return atoms


def converged(method, charge=0, basis="6-31g"):
    atoms = molecule(charge, basis)
    if method == "hf":
        field = scf.UHF(atoms) if charge else scf.RHF(atoms)
    else:
        field = dft.UKS(atoms) if charge else dft.RKS(atoms)
        field.xc = method
        field.grids.level = 1
    field = field.density_fit()
    field.kernel()
    assert field.converged
    return field


def by_atom(atoms, matrices, densities, rest):
    """The atoms' part of PySCF's derivative matrices, with what it has by atom."""
    found = np.array(rest)
    for atom, (_, _, start, stop) in enumerate(atoms.aoslice_by_atom()):
        for matrix, density in zip(matrices, densities, strict=True):
            found[atom] += 2.0 * np.einsum("xij,ij->x", matrix[:, start:stop], density[start:stop])
    return found


@pytest.mark.parametrize("charge", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_of_a_functional_is_pyscfs_with_the_response_of_the_grid(method, charge):
    field = converged(method, charge)
    density = field.make_rdm1()
    module = uks if charge else rks
    rest, matrices = module.get_vxc_full_response(field._numint, field.mol, field.grids, method, density)
    spins = np.asarray(density) if charge else np.asarray(density)[None]
    expected = by_atom(field.mol, matrices if charge else matrices[None], spins, rest)
    integrate = field._numint.nr_uks if charge else field._numint.nr_rks
    _, energy, _ = integrate(field.mol, field.grids, method, density)
    found, gradient = functional_gradient(field, density, METHODS[method])
    assert found == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(gradient, expected, rtol=0.0, atol=EXACT)
    # A density matrix without its orbitals gives the same.
    _, again = functional_gradient(field, np.array(density), METHODS[method])
    np.testing.assert_allclose(again, gradient, rtol=0.0, atol=EXACT)
    assert abs(gradient.sum(axis=0)).max() < EXACT


@pytest.mark.parametrize("charge", [0, 1])
@pytest.mark.parametrize("method", ["hf", "pbe", "b3lyp", "hse06"])
def test_the_two_electron_gradient_is_pyscfs(method, charge):
    field = converged(method, charge)
    theirs = field.nuc_grad_method()
    theirs.verbose = 0
    theirs.grid_response = method != "hf"
    expected = theirs.kernel()
    ours = field.nuc_grad_method()
    ours.verbose = 0
    shape = (2, 3, field.mol.nao, field.mol.nao) if charge else (3, field.mol.nao, field.mol.nao)
    two_electron = two_electron_gradient(field)
    ours.get_veff = lambda mol=None, dm=None: np.zeros(shape)
    ours.extra_force = lambda atom, variables: two_electron[atom]
    np.testing.assert_allclose(ours.kernel(), expected, rtol=0.0, atol=EXACT)


def test_integrals_in_small_blocks_give_the_same(monkeypatch):
    field = converged("hf")
    orbitals = [field.mo_coeff[:, field.mo_occ > 0]]
    whole = fitted_gradient(field.with_df, orbitals, True, 1.0)
    monkeypatch.setattr(fitted_module, "BLOCK_BYTES", 1000)
    np.testing.assert_allclose(fitted_gradient(field.with_df, orbitals, True, 1.0), whole, rtol=0.0, atol=1e-13)


def test_linearly_dependent_auxiliary_functions_are_left_to_pyscf(monkeypatch):
    field = converged("hf")

    def fails(*arguments, **settings):
        raise np.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(fitted_module.scipy.linalg, "cholesky", fails)
    assert fitted_gradient(field.with_df, [field.mo_coeff[:, field.mo_occ > 0]], True, 1.0) is None
    assert two_electron_gradient(field) is None


def test_what_is_left_to_pyscf():
    # The metric of the long-range part is nearly singular, and PySCF takes its eigenvectors.
    assert two_electron_gradient(converged("camb3lyp")) is None
    field = converged("pbe")
    assert two_electron_gradient(field) is not None
    field.grids.becke_scheme = dft.gen_grid.stratmann
    assert two_electron_gradient(field) is None
    field = converged("pbe")
    field.nlc = "vv10"
    assert two_electron_gradient(field) is None


@pytest.mark.parametrize("adjust", [dft.radi.treutler_atomic_radii_adjust, dft.radi.becke_atomic_radii_adjust, None])
def test_derivatives_of_the_weights_are_those_of_differences(adjust):
    atoms = molecule()
    grids = dft.gen_grid.Grids(atoms)
    grids.radii_adjust, grids.level = adjust, 0
    rng = np.random.default_rng(1)
    shells = grids.gen_atomic_grids(atoms)
    factors = [rng.normal(size=len(shells[atoms.atom_symbol(k)][1])) for k in range(atoms.natm)]

    def weighted(positions):
        moved = atoms.set_geom_(positions, unit="Bohr", inplace=False)
        _, weights = grids.get_partition(moved, shells, adjust, grids.atomic_radii, concat=False)
        return sum(float(f @ w) for f, w in zip(factors, weights, strict=True))

    positions = atoms.atom_coords()
    points, _ = grids.get_partition(atoms, shells, adjust, grids.atomic_radii, concat=False)
    becke = BeckeWeights(atoms, grids)
    found = sum(becke.gradient(points[k], k, factors[k] * shells[atoms.atom_symbol(k)][1]) for k in range(atoms.natm))
    step = 1e-4
    for atom, axis in ((0, 0), (1, 1), (3, 2)):
        shift = np.zeros_like(positions)
        shift[atom, axis] = step
        expected = (weighted(positions + shift) - weighted(positions - shift)) / (2.0 * step)
        assert found[atom, axis] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert abs(found.sum(axis=0)).max() < 1e-9 * abs(found).max()


def test_one_atom_has_no_derivative_of_weights():
    atoms = gto.M(atom="O 0 0 0", verbose=0)
    grids = dft.gen_grid.Grids(atoms)
    assert (BeckeWeights(atoms, grids).gradient(np.ones((4, 3)), 0, np.ones(4)) == 0.0).all()


def test_the_factor_of_a_density_gives_the_density():
    field = converged("hf", 1)
    for spin in spin_densities(field.make_rdm1()):
        np.testing.assert_allclose(spin.factor @ spin.factor.T, spin.matrix, rtol=0.0, atol=1e-12)
    assert spin_densities(np.eye(3))[0].factor is None
