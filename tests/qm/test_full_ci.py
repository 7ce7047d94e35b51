"""States of one multiplicity in an active space: none is missed, none is of another spin."""

import numpy as np
import pytest
from pyscf import fci, gto, mcscf, scf

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.geometry import Geometry
from qmmlmm.qm import CASSCF, PySCFPotential
from qmmlmm.qm.excited import spin_states
from qmmlmm.qm.states import full_ci
from qmmlmm.units import ANGSTROM_IN_BOHR

EXACT = 1e-9
"""hartree. Davidson's iterations end at 1e-13 in the energy; dense diagonalisation errs by 1e-13."""
HYDROGEN = ([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]])
OXYGEN = ([8, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]])


def all_states(h1, h2, norb, nelec, multiplicity):
    """Return the energies of all states of a multiplicity: others are lifted out of sight in the matrix of all."""
    shape = [fci.cistring.num_strings(norb, n) for n in nelec]
    ones = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    operator = fci.direct_spin1.absorb_h1e(h1, h2, norb, nelec, 0.5)
    hamiltonian = [fci.direct_spin1.contract_2e(operator, one, norb, nelec).ravel() for one in ones]
    square = np.array([fci.spin_op.contract_ss(one, norb, nelec).ravel() for one in ones])
    excess = square - 0.25 * (multiplicity**2 - 1) * np.eye(len(square))
    return np.linalg.eigvalsh(hamiltonian + 1e3 * excess @ excess)[: spin_states(sum(nelec), norb, multiplicity)]


def solved(integrals, multiplicity, count, unpaired=0):
    norb = integrals[0].shape[0]
    up = (4 + unpaired) // 2
    solver = full_ci.full_ci(gto.M(verbose=0), norb, (up, 4 - up), multiplicity, 1e-13, 200)
    energies, vectors = solver.kernel(*integrals, norb, (up, 4 - up), nroots=count)
    squares = [fci.spin_op.spin_square(v, norb, (up, 4 - up))[0] for v in (vectors if count > 1 else [vectors])]
    assert squares == pytest.approx([0.25 * (multiplicity**2 - 1)] * count, abs=1e-8)
    return np.atleast_1d(energies), all_states(*integrals, norb, (up, 4 - up), multiplicity)[:count]


@pytest.fixture(scope="module")
def formaldehyde():
    """Integrals of the pi orbital, the lone pair and pi* of planar formaldehyde, in the order of HF."""
    atoms = "C 0 0 0; O 0 0 1.205; H 0 0.94 -0.587; H 0 -0.94 -0.587"
    mean_field = scf.RHF(gto.M(atom=atoms, basis="sto-3g", verbose=0)).run()
    space = mcscf.CASCI(mean_field, 3, 4)
    return space.get_h1eff()[0], space.get_h2eff()


@pytest.mark.parametrize("dense", [400, 0], ids=["whole", "iterated"])
@pytest.mark.parametrize("shift", np.linspace(-0.6, 0.3, 7))
@pytest.mark.parametrize(("multiplicity", "unpaired"), [(1, 0), (3, 0), (3, 2)])
def test_no_state_of_another_symmetry_is_passed_over(formaldehyde, monkeypatch, dense, shift, multiplicity, unpaired):
    # What a charge next to the oxygen does to its lone pair: n -> pi* and pi -> pi* change places, with determinants in
    # another order than the states.
    h1, h2 = formaldehyde[0].copy(), formaldehyde[1]
    h1[1, 1] += shift
    monkeypatch.setattr(full_ci, "DENSE", dense)
    for count in (1, 2, 3):
        found, exact = solved((h1, h2), multiplicity, count, unpaired)
        assert found == pytest.approx(exact, abs=EXACT)


def test_a_penalty_alone_passes_over_a_state(formaldehyde):
    # The reason for all this; when PySCF finds it, FullCI may go.
    h1, h2 = formaldehyde[0].copy(), formaldehyde[1]
    missed = []
    for shift in np.linspace(-0.6, 0.3, 13):
        h1[1, 1] = formaldehyde[0][1, 1] + shift
        plain = fci.addons.fix_spin_(fci.direct_spin1.FCISolver(), shift=0.5, ss=0.0)
        plain.verbose, plain.conv_tol, plain.max_cycle = 0, 1e-13, 200
        missed.append(plain.kernel(h1, h2, 3, (2, 2), nroots=2)[0][1] - all_states(h1, h2, 3, (2, 2), 1)[1])
    assert max(missed) > 1e-3


def test_all_singlets_of_hydrogen_are_below_no_triplet():
    potential = PySCFPotential("hf", "sto-3g", excited=CASSCF(3, 2, 2))
    evaluator = potential.create_evaluator(RegionSpecification("hydrogen", np.array(HYDROGEN[0]), 0, 1))
    found = evaluator.evaluate(Geometry(np.array(HYDROGEN[1]) * ANGSTROM_IN_BOHR), None).states.state_energies
    molecule = gto.M(atom="H 0 0 0; H 0 0 0.74", basis="sto-3g", verbose=0)
    overlap = molecule.intor("int1e_ovlp")[0, 1]
    orbitals = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2.0 + 2.0 * np.array([overlap, -overlap]))
    h = np.diag(orbitals.T @ (molecule.intor("int1e_kin") + molecule.intor("int1e_nuc")) @ orbitals)
    two = np.einsum("pqrs,pi,qj,rk,sl->ijkl", molecule.intor("int2e"), *[orbitals] * 4)
    exchange = two[0, 1, 0, 1]
    pairs = np.linalg.eigvalsh([[2 * h[0] + two[0, 0, 0, 0], exchange], [exchange, 2 * h[1] + two[1, 1, 1, 1]]])
    expected = np.sort([*pairs, h.sum() + two[0, 0, 1, 1] + exchange]) + molecule.energy_nuc()
    assert found == pytest.approx(expected, abs=1e-7)  # of bohr, which PySCF has from an older CODATA
    # The triplet, lifted by a hartree, is below the third.
    assert h.sum() + two[0, 0, 1, 1] - exchange + molecule.energy_nuc() + 1.0 < expected[2]


def test_both_states_of_a_degenerate_pair_are_found():
    # 3 Delta_u of O2, and 3 Sigma_u^- would be 0.005 hartree higher.
    potential = PySCFPotential("hf", "sto-3g", excited=CASSCF(3, 6, 4, active=("O 2px", "O 2py")))
    evaluator = potential.create_evaluator(RegionSpecification("oxygen", np.array(OXYGEN[0]), 0, 3))
    energies = evaluator.evaluate(Geometry(np.array(OXYGEN[1]) * ANGSTROM_IN_BOHR), None).states.state_energies
    assert energies[2] == pytest.approx(energies[1], abs=1e-7)
    assert energies[1] - energies[0] > 0.1
