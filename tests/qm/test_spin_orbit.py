"""Spin-orbit coupling of singlets and triplets: atoms against measured levels, El-Sayed's rule, errors."""

import numpy as np
import pytest

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import PotentialError, RegionError
from qmmlmm.qm import CASSCF, PySCFPotential
from qmmlmm.qm.spin_orbit import effective_charge, spin_orbit_coupling
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_PER_CM

FIT = 0.15
"""Of the splitting of an atom: how well effective charges, which were fitted to many molecules, give one of them."""
SYMMETRY = 1e-4
"""Of a ratio that the symmetry of an atom fixes: the orbitals are converged to 1e-6."""
FORBIDDEN = 0.01  # 1/cm


def coupling_of(numbers, places, space, basis="6-31g*", charge=0, **states):
    potential = PySCFPotential("hf", basis, excited=space)
    specification = RegionSpecification("atoms", np.array(numbers), charge, 1)
    return spin_orbit_coupling(potential, specification, np.array(places) * ANGSTROM_IN_BOHR, **states)


@pytest.mark.parametrize(
    ("number", "width"),
    [
        # E(3P, J=2) - E(3P, J=0) in 1/cm: C I 2s2 2p2, Si I 3s2 3p2. NIST Atomic Spectra Database,
        # https://physics.nist.gov/asd; carbon is also in Haris and Kramida, Astrophys. J. Suppl. Ser. 233, 16 (2017),
        # silicon in Martin and Zalubas, J. Phys. Chem. Ref. Data 12, 323 (1983).
        (6, 43.4135),
        (14, 223.157),
    ],
)
def test_an_atom_has_the_coupling_of_its_measured_fine_structure(number, width):
    found = coupling_of([number], [[0.0, 0.0, 0.0]], CASSCF(2, 2, 3), n_singlets=6, n_triplets=3)
    # p2 has five 1D, one 1S and three 3P; the matrices of J = 0 and J = 2 (Condon and Shortley, The Theory of Atomic
    # Spectra, chapter 11) have the elements sqrt(2) zeta and zeta/sqrt(2) between singlet and triplet, and the
    # splitting of the triplet is 3/2 zeta.
    squares = (found.strengths**2).sum(axis=1)
    assert np.ptp(found.triplet_energies) < 1e-6
    assert np.ptp(found.singlet_energies[:5]) < 1e-6
    assert squares[5] / squares[:5].sum() == pytest.approx(2.0 / 2.5, rel=SYMMETRY)
    zeta = np.sqrt(0.5 * squares[5]) * HARTREE_IN_PER_CM
    assert zeta == pytest.approx(width / 1.5, rel=FIT)


FORMALDEHYDE = ([6, 8, 1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.205], [0.0, 0.94, -0.587], [0.0, -0.94, -0.587]])


def test_states_of_the_same_orbitals_do_not_couple_as_el_sayed_found():
    space = CASSCF(2, 4, 3, active=("C 2px", "O 2px", "O 2py"))
    found = coupling_of(*FORMALDEHYDE, space, "sto-3g", n_singlets=2, n_triplets=2)
    strengths = found.strengths * HARTREE_IN_PER_CM
    # 60 and 50 1/cm. n -> pi* is below pi -> pi* in the triplets, and the ground state is the lowest singlet.
    assert strengths[1, 0] < FORBIDDEN
    assert strengths[0, 1] < FORBIDDEN
    assert (strengths[[0, 1], [0, 1]] > 40.0).all()
    # Each sublevel has a symmetry of its own: one of three has it all.
    components = np.sort(abs(found.components), axis=2)
    assert (components[[0, 1], [0, 1], 1] * HARTREE_IN_PER_CM).max() < FORBIDDEN


def test_the_only_triplet_of_two_orbitals_is_found_and_couples_along_one_axis():
    # CH2: the triplet has one electron in a1 and one in b1, and their rotation into each other is about one axis.
    places = [[0.0, 0.0, 0.0], [0.0, 0.866, 0.7], [0.0, -0.866, 0.7]]
    found = coupling_of([6, 1, 1], places, CASSCF(2, 2, 2), "6-31g")
    strength = found.strengths[0, 0] * HARTREE_IN_PER_CM
    assert abs(found.components[0, 0]).max() * HARTREE_IN_PER_CM == pytest.approx(strength, abs=FORBIDDEN)
    # An atom's zeta is 29 1/cm, of which hybrids have a part.
    assert 5.0 < strength < 29.0


def test_orbitals_at_which_the_first_solver_stands_still_converge():
    places = [[0.0, 0.0, -0.178490680], [0.0, 0.734481446, 0.789245340], [0.0, -0.734481446, 0.789245340]]
    found = coupling_of([6, 1, 1], places, CASSCF(2, 2, 2), "sto-3g")
    # PySCF's second-order solver gives -38.34104222797 for the average.
    assert found.singlet_energies[0] + found.triplet_energies[0] == pytest.approx(2.0 * -38.34104222797, abs=1e-8)


def test_effective_charges_are_those_of_the_fit():
    # Koseki et al., as tables of programs that use them have it.
    table = {
        1: 1.0,
        3: 1.35,
        4: 2.0,
        5: 2.75,
        6: 3.6,
        7: 4.55,
        8: 5.6,
        9: 6.75,
        12: 10.8,
        14: 12.25,
        16: 13.6,
        17: 14.24,
    }
    assert [effective_charge(z) for z in table] == pytest.approx(list(table.values()), abs=0.005)


def test_what_has_no_spin_orbit_coupling_is_refused():
    carbon = ([6], [[0.0, 0.0, 0.0]])
    with pytest.raises(PotentialError, match="needs an active space"):
        coupling_of(*carbon, None)
    with pytest.raises(PotentialError, match="n_triplets is an integer from 1 to 3"):
        coupling_of(*carbon, CASSCF(2, 2, 3), n_triplets=4)
    with pytest.raises(RegionError, match="even number of electrons"):
        coupling_of(*carbon, CASSCF(2, 2, 3), charge=1)
    with pytest.raises(RegionError, match="up to argon"):
        coupling_of([26], [[0.0, 0.0, 0.0]], CASSCF(2, 2, 3))
    with pytest.raises(PotentialError, match="core potentials"):
        coupling_of([14], [[0.0, 0.0, 0.0]], CASSCF(2, 2, 3), "lanl2dz")
