"""Gaussian charges around a QM region, against PySCF's own and against integrals put together by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pyscf import df, dft, gto, qmmm, scf

from qmmlmm.coupling.potential import ExternalField
from qmmlmm.coupling.smeared_charges import REACH
from qmmlmm.errors import ConvergenceError, EvaluationError
from qmmlmm.qm import PySCFPotential
from qmmlmm.qm.field.compact_charges import DENSITY_REACH, CompactCharges
from qmmlmm.units import ANGSTROM_IN_BOHR
from tests.qm.gradients import TIGHT, check_gradients

SAME_OPERATOR = 1e-8  # hartree: two ways to the same integrals; the limit is conv_tol
SAME_GRADIENT = 1e-7  # hartree/bohr: linear in the remaining error of the orbitals
SAME_INTEGRALS = 1e-10  # hartree: screening of primitive pairs
NO_NET_FORCE = 1e-9  # hartree/bohr: translational invariance holds term by term

WIDTHS = np.array([0.9, 2.0, 0.0, 0.9])  # bohr


def molecule_of(case, basis="6-31g"):
    atoms = [(int(z), tuple(r)) for z, r in zip(case.specification.atomic_numbers, case.positions, strict=True)]
    spin = case.specification.multiplicity - 1
    return gto.M(atom=atoms, unit="Bohr", basis=basis, charge=case.specification.charge, spin=spin, verbose=0)


def close_charges(widths=WIDTHS) -> ExternalField:
    """Charges as close as at a cut bond, 1.4 to 3 bohr from the nearest nucleus."""
    places = np.array([[0.3, -1.0, 3.2], [1.9, 2.4, -0.6], [-2.4, 0.2, -0.4], [0.2, -0.3, -2.4]])
    return ExternalField(places, np.array([0.6, -0.4, 0.2, 0.3]), np.zeros(4), widths=widths)


@pytest.mark.parametrize(
    ("name", "method", "density_fit", "reference"),
    [
        ("water", "hf", False, lambda m: scf.RHF(m)),
        ("water", "pbe", True, lambda m: dft.RKS(m, xc="pbe").density_fit()),
        ("radical", "hf", False, lambda m: scf.UHF(m)),
    ],
)
def test_gaussian_charges_act_as_in_pyscfs_own_qmmm(truth, request, name, method, density_fit, reference):
    case = request.getfixturevalue(name)
    field = close_charges()
    potential = PySCFPotential(method, "6-31g", density_fit=density_fit, conv_tol=1e-12)
    result = potential.create_evaluator(case.specification).evaluate(case.geometry, field)
    # PySCF takes no points among Gaussians; 1e-4 bohr is none, as far as electrons can tell.
    radii = np.where(field.widths > 0.0, field.widths, 1e-4)
    plain = reference(molecule_of(case)).set(conv_tol=1e-12)
    theirs = qmmm.mm_charge(plain, field.positions, field.point_charges, radii=radii, unit="Bohr")
    check = "HF and PBE, smeared charges, against `pyscf.qmmm` with radii"
    truth.below(f"{check}: energy", result.energy - theirs.kernel(), SAME_OPERATOR, "hartree")
    gradient = theirs.nuc_grad_method()
    if method != "hf":
        gradient.grid_response = True
    on_atoms = abs(result.gradient - gradient.kernel()).max()
    density = theirs.make_rdm1()
    density = density.sum(axis=0) if density.ndim == 3 else density
    on_charges = abs(result.charge_gradient - gradient.grad_nuc_mm() - gradient.grad_hcore_mm(density)).max()
    truth.below(f"{check}: forces", max(on_atoms, on_charges), SAME_GRADIENT, "hartree/bohr")
    points = replace(field, widths=None)
    bare = potential.create_evaluator(case.specification).evaluate(case.geometry, points)
    assert abs(bare.energy - result.energy) > 5e-4  # the widths are seen


def test_in_a_box_a_gaussian_charge_acts_through_the_difference_of_two_error_functions(water):
    molecule = molecule_of(water)
    field = close_charges()
    field = replace(field, gaussian_charges=-field.point_charges, splitting=0.3)
    expected = 0.0
    for place, charge, width in zip(field.positions, field.point_charges, WIDTHS, strict=True):
        inner = gto.fakemol_for_charges(place[None], expnt=1.0 / width**2 if width else 1e16)
        outer = gto.fakemol_for_charges(place[None], expnt=0.3**2)
        for fake, sign in ((inner, -1.0), (outer, 1.0)):
            expected = expected + sign * charge * df.incore.aux_e2(molecule, fake, "int3c2e")[:, :, 0]
    np.testing.assert_allclose(CompactCharges(molecule, field).core_hamiltonian(), expected, atol=SAME_INTEGRALS)


def test_very_narrow_and_far_charges_are_points(water):
    near, far = close_charges(np.full(4, 1e-4)), close_charges()
    far = replace(far, positions=far.positions * 8.0)  # 19 bohr away, 6.8 of the largest width
    for field in (near, far):
        evaluator = PySCFPotential("hf", "6-31g", conv_tol=TIGHT).create_evaluator(water.specification)
        first = evaluator.evaluate(water.geometry, field)
        second = evaluator.evaluate(water.geometry, replace(field, widths=None))
        assert first.energy == pytest.approx(second.energy, abs=SAME_OPERATOR)
        np.testing.assert_allclose(first.gradient, second.gradient, atol=SAME_GRADIENT)
        np.testing.assert_allclose(first.charge_gradient, second.charge_gradient, atol=SAME_GRADIENT)


@pytest.mark.parametrize("width", [0.9, 3.5])
def test_nothing_happens_where_a_gaussian_charge_becomes_a_point(water, width):
    molecule = molecule_of(water, "6-31+g*")
    direction = np.array([0.0, 0.0, 1.0])
    place = water.positions[1] + (DENSITY_REACH + REACH * width) * direction
    operators = []
    for shift in (-1e-6, 1e-6):
        field = ExternalField((place + shift * direction)[None], np.ones(1), np.zeros(1), widths=np.full(1, width))
        operators.append(CompactCharges(molecule, field).core_hamiltonian())
    # A point 2e-6 bohr away has potentials that differ by 2e-6/13^2.
    assert abs(operators[0] - operators[1]).max() < 2e-8
    slope = CompactCharges(molecule, replace(field, widths=None)).core_hamiltonian() - operators[1]
    assert abs(slope).max() == 0.0


def test_gradients_are_exact_and_the_charges_of_a_box_may_have_widths(hydroxide, radical):
    for case in (hydroxide, radical):
        broad = 1.0 + np.arange(len(case.field.positions)) % 3
        field = replace(case.field, widths=np.where(case.field.point_charges != 0.0, broad, 0.0))
        # Closer than in the other tests.
        positions = field.positions.copy()
        positions[:5] *= 0.55
        case = replace(case, field=replace(field, positions=positions))
        check_gradients(case, PySCFPotential("hf", "6-31g", density_fit=False, embedding_grid_level=0, conv_tol=1e-12))


def test_forces_on_atoms_and_all_charges_sum_to_zero(water):
    evaluator = PySCFPotential("b3lyp", "6-31g", conv_tol=TIGHT).create_evaluator(water.specification)
    result = evaluator.evaluate(water.geometry, close_charges())
    net = result.gradient.sum(axis=0) + result.charge_gradient.sum(axis=0)
    np.testing.assert_allclose(net, 0.0, atol=NO_NET_FORCE)


def test_the_energies_of_the_charges_add_up_to_the_interaction(water):
    evaluator = PySCFPotential("hf", "6-31g", density_fit=False, conv_tol=TIGHT).create_evaluator(water.specification)
    field = close_charges()
    whole = evaluator.evaluate(water.geometry, field)
    mean_field = evaluator.mean_field(water.geometry, None)
    density = evaluator.mean_field(water.geometry, field).run().make_rdm1()
    alone = mean_field.energy_elec(density)[0] + mean_field.energy_nuc()
    assert whole.charge_energies().sum() == pytest.approx(whole.energy - alone, abs=SAME_OPERATOR)


@pytest.mark.parametrize("widths", [np.ones(3), np.array([1.0, -1.0, 0.0, 0.0]), np.array([1.0, np.nan, 0.0, 0.0])])
def test_widths_that_make_no_sense_are_refused(water, widths):
    evaluator = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    with pytest.raises(EvaluationError, match=r"widths of the external field are \(4,\) finite numbers"):
        evaluator.evaluate(water.geometry, close_charges(widths))


def test_a_failed_calculation_leaves_the_widths_in_its_file(water, tmp_path):
    potential = PySCFPotential("hf", "6-31g", max_cycle=1, failure_directory=tmp_path)
    with pytest.raises(ConvergenceError):
        potential.create_evaluator(water.specification).evaluate(water.geometry, close_charges())
    (path,) = tmp_path.glob("*.charges.txt")
    assert "width of the point charge (angstrom)" in path.read_text()
    np.testing.assert_allclose(np.loadtxt(path)[:, 5] * ANGSTROM_IN_BOHR, WIDTHS, atol=1e-9)
