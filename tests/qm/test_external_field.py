from dataclasses import replace

import numpy as np
import pytest
from pyscf import df, dft, gto, mp, qmmm, scf, tdscf

from qmmlmm.coupling.potential import ExternalField
from qmmlmm.errors import EvaluationError, NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.qm import PySCFPotential
from qmmlmm.qm.field.compact_charges import CompactCharges
from qmmlmm.qm.field.quadrature import AtomGrid
from qmmlmm.qm.field.smooth_potential import NEGLIGIBLE_WEIGHT, SmoothPotential
from qmmlmm.units import ANGSTROM_IN_BOHR

SAME_OPERATOR = 1e-8  # hartree: two ways to the same integrals; the limit is conv_tol
SAME_GRADIENT = 1e-7  # hartree/bohr: linear in the remaining error of the orbitals
QUADRATURE = 1e-6  # hartree: error of the grid at its default level
TIGHT = 1e-11


def _molecule(case, basis="6-31g"):
    atoms = [(int(z), tuple(r)) for z, r in zip(case.specification.atomic_numbers, case.positions, strict=True)]
    return gto.M(
        atom=atoms,
        unit="Bohr",
        basis=basis,
        charge=case.specification.charge,
        spin=case.specification.multiplicity - 1,
        verbose=0,
    )


def _points_only(field):
    return ExternalField(field.positions[:4], np.array([0.6, -0.4, 0.2, 0.3]), np.zeros(4))


@pytest.mark.parametrize(
    ("method", "density_fit", "reference"),
    [
        ("hf", False, lambda m: scf.RHF(m)),
        ("hf", True, lambda m: scf.RHF(m).density_fit()),
        ("PBE", True, lambda m: dft.RKS(m, xc="pbe").density_fit()),
    ],
)
def test_without_a_field_energy_and_gradient_are_those_of_plain_pyscf(water, method, density_fit, reference):
    potential = PySCFPotential(method, "6-31g", density_fit=density_fit, conv_tol=TIGHT)
    result = potential.create_evaluator(water.specification).evaluate(water.geometry, None)
    mean_field = reference(_molecule(water)).set(conv_tol=TIGHT)
    assert result.energy == pytest.approx(mean_field.kernel(), abs=SAME_OPERATOR)
    gradient = mean_field.nuc_grad_method().set(grid_response=True)
    np.testing.assert_allclose(result.gradient, gradient.kernel(), atol=SAME_GRADIENT)
    assert result.charge_gradient.shape == (0, 3)
    assert result.smooth_charges.shape == (0,)


def test_point_charges_act_as_in_pyscfs_own_qmmm(truth, water):
    field = _points_only(water.field)
    potential = PySCFPotential("hf", "6-31g", density_fit=False, conv_tol=TIGHT)
    result = potential.create_evaluator(water.specification).evaluate(water.geometry, field)
    plain = scf.RHF(_molecule(water)).set(conv_tol=TIGHT)
    reference = qmmm.mm_charge(plain, field.positions, field.point_charges, unit="Bohr")
    check = "HF, point charges without a box, against `pyscf.qmmm`"
    truth.below(f"{check}: energy", result.energy - reference.kernel(), SAME_OPERATOR, "hartree")
    gradient = reference.nuc_grad_method()
    on_atoms = abs(result.gradient - gradient.kernel()).max()
    density = reference.make_rdm1()
    on_charges = abs(result.charge_gradient - gradient.grad_nuc_mm() - gradient.grad_hcore_mm(density)).max()
    truth.below(f"{check}: forces", max(on_atoms, on_charges), SAME_GRADIENT, "hartree/bohr")


def test_very_narrow_gaussians_act_as_point_charges(water):
    points = _points_only(water.field)
    narrow = replace(points, point_charges=np.zeros(4), gaussian_charges=points.point_charges, splitting=2000.0)
    evaluator = PySCFPotential("hf", "6-31g", conv_tol=TIGHT).create_evaluator(water.specification)
    first = evaluator.evaluate(water.geometry, points)
    second = evaluator.evaluate(water.geometry, narrow)
    assert second.energy == pytest.approx(first.energy, abs=SAME_OPERATOR)
    np.testing.assert_allclose(second.gradient, first.gradient, atol=SAME_GRADIENT)
    np.testing.assert_allclose(second.charge_gradient, first.charge_gradient, atol=SAME_GRADIENT)


def test_points_and_gaussians_give_the_operator_of_three_centre_integrals(water):
    molecule, field = _molecule(water), water.field
    points = gto.fakemol_for_charges(field.positions)
    gaussians = gto.fakemol_for_charges(field.positions, expnt=field.splitting**2)
    expected = -df.incore.aux_e2(molecule, points, "int3c2e") @ field.point_charges
    expected -= df.incore.aux_e2(molecule, gaussians, "int3c2e") @ field.gaussian_charges
    operator = CompactCharges(molecule, field).core_hamiltonian()
    np.testing.assert_allclose(operator, expected, atol=1e-10)  # screening of primitive pairs


def test_a_pair_of_point_and_gaussian_acts_like_the_two_apart(water):
    positions = water.field.positions[:1]
    pair = ExternalField(positions, np.array([0.7]), np.array([-0.7]), 0.25)
    apart = ExternalField(np.repeat(positions, 2, axis=0), np.array([0.7, 0]), np.array([0, -0.7]), 0.25)
    evaluator = PySCFPotential("hf", "6-31g", conv_tol=TIGHT).create_evaluator(water.specification)
    first, second = (evaluator.evaluate(water.geometry, field) for field in (pair, apart))
    assert first.energy == pytest.approx(second.energy, abs=SAME_OPERATOR)
    np.testing.assert_allclose(first.gradient, second.gradient, atol=SAME_GRADIENT)
    np.testing.assert_allclose(first.charge_gradient[0], second.charge_gradient.sum(axis=0), atol=SAME_GRADIENT)


def test_the_same_smooth_potential_as_integrals_and_as_callable_gives_the_same_result(water):
    broad = water.field.smooth_potential
    empty = np.zeros(len(broad.charges))
    as_charges = ExternalField(broad.positions, empty, broad.charges, broad.splitting)
    as_callable = ExternalField(np.zeros((0, 3)), np.zeros(0), np.zeros(0), None, broad)
    evaluator = PySCFPotential("hf", "6-31g", conv_tol=TIGHT).create_evaluator(water.specification)
    integrals = evaluator.evaluate(water.geometry, as_charges)
    quadrature = evaluator.evaluate(water.geometry, as_callable)
    assert quadrature.energy == pytest.approx(integrals.energy, abs=QUADRATURE)
    np.testing.assert_allclose(quadrature.gradient, integrals.gradient, atol=QUADRATURE)
    np.testing.assert_allclose(broad.gradient(quadrature), integrals.charge_gradient, atol=QUADRATURE)
    assert quadrature.charge_gradient.shape == (0, 3)


def test_the_charge_that_feels_the_smooth_part_is_the_charge_of_the_region(hydroxide):
    evaluator = PySCFPotential("hf", "6-31g", embedding_grid_level=0).create_evaluator(hydroxide.specification)
    result = evaluator.evaluate(hydroxide.geometry, hydroxide.field)
    assert result.smooth_charges.sum() == pytest.approx(-1.0, abs=1e-10)  # exact by construction
    dipole = result.smooth_charges @ (result.smooth_points - result.results["dipole_origin"])
    np.testing.assert_allclose(dipole, result.results["dipole"], atol=1e-9)


def test_only_points_without_density_are_left_out(water):
    molecule = _molecule(water)
    smooth = SmoothPotential(molecule, 1, water.field.smooth_potential, "water")
    every, kept = AtomGrid(molecule, 1), smooth._grid
    functions = molecule.eval_gto("GTOval_sph", every.points)
    needed = np.abs(every.weights) * (functions**2).max(axis=1) > NEGLIGIBLE_WEIGHT
    left_out = {tuple(point) for point in every.points} - {tuple(point) for point in kept.points}
    assert left_out
    assert not left_out & {tuple(point) for point in every.points[needed]}


def test_an_empty_field_is_no_field(water):
    evaluator = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    empty = ExternalField(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    first, second = (evaluator.evaluate(water.geometry, field) for field in (None, empty))
    assert first.energy == pytest.approx(second.energy, abs=SAME_OPERATOR)


def test_the_results_hold_the_dipole_and_the_charges(radical):
    evaluator = PySCFPotential("hf", "6-31g").create_evaluator(radical.specification)
    result = evaluator.evaluate(radical.geometry, radical.field).results
    assert result["mulliken_charges"].sum() == pytest.approx(0.0, abs=1e-10)
    assert result["s_squared"] == pytest.approx(0.75, abs=0.01)  # little spin contamination in OH
    assert result["scf_guess"] == "fresh guess"
    neutral = _molecule(radical)
    reference = scf.UHF(neutral).density_fit().run()
    vacuum = evaluator.evaluate(radical.geometry, None).results["dipole"]
    np.testing.assert_allclose(vacuum, reference.dip_moment(unit="au", verbose=0), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splitting": None}, "splitting is None"),
        ({"point_charges": np.zeros(2)}, r"point_charges of the external field have shape \(2,\)"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused(water, changes, message):
    evaluator = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    with pytest.raises(EvaluationError, match=message):
        evaluator.evaluate(water.geometry, replace(water.field, **changes))


@pytest.mark.parametrize(("distance", "refused"), [(0.0, True), (0.29, True), (0.31, False)])
def test_a_point_charge_inside_an_atom_is_named(water, distance, refused):
    evaluator = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    place = water.positions[1:2] + np.array([distance * ANGSTROM_IN_BOHR, 0.0, 0.0])
    field = ExternalField(place, np.array([0.01]), np.array([0.0]))
    if refused:
        with pytest.raises(EvaluationError, match=f"point charge 0 lies {distance:.2f} angstrom from atom 1"):
            evaluator.evaluate(water.geometry, field)
    else:
        evaluator.evaluate(water.geometry, field)


def test_a_post_scf_method_sees_the_field_that_the_reference_sees(water):
    evaluator = PySCFPotential("hf", "6-31g", density_fit=False, conv_tol=TIGHT).create_evaluator(water.specification)
    mean_field = evaluator.mean_field(water.geometry, _points_only(water.field)).run()
    plain = scf.RHF(_molecule(water)).set(conv_tol=TIGHT)
    field = _points_only(water.field)
    reference = qmmm.mm_charge(plain, field.positions, field.point_charges, unit="Bohr").run()
    assert mp.MP2(mean_field).run().e_tot == pytest.approx(mp.MP2(reference).run().e_tot, abs=SAME_OPERATOR)
    ours, theirs = (np.asarray(tdscf.TDA(m).set(nstates=3).run().e) for m in (mean_field, reference))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)  # converged to 1e-5 in the vectors
    # With the smooth part of the field too, the energy of the reference is that of the evaluator.
    embedded = evaluator.mean_field(water.geometry, water.field).run()
    assert embedded.e_tot == pytest.approx(evaluator.evaluate(water.geometry, water.field).energy, abs=SAME_OPERATOR)
    assert abs(mp.MP2(embedded).run().e_corr - mp.MP2(mean_field).run().e_corr) > 1e-5


def test_values_that_are_not_finite_are_named(water):
    evaluator = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    positions = water.positions.copy()
    positions[2, 0] = np.nan
    with pytest.raises(NonFiniteError, match="positions of atoms 2 are not finite"):
        evaluator.evaluate(Geometry(positions), None)
    charges = water.field.point_charges.copy()
    charges[3] = np.inf
    with pytest.raises(NonFiniteError, match="point_charges of external charges 3"):
        evaluator.evaluate(water.geometry, replace(water.field, point_charges=charges))

    def broken(points):
        return np.full(len(points), np.nan), np.zeros_like(points)

    with pytest.raises(NonFiniteError, match="smooth part of the external potential is not finite"):
        evaluator.evaluate(water.geometry, replace(water.field, smooth_potential=broken))


def test_positions_of_the_wrong_number_of_atoms_are_refused(water):
    evaluator = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    with pytest.raises(EvaluationError, match=r"shape \(2, 3\), the region needs \(3, 3\)"):
        evaluator.evaluate(Geometry(water.positions[:2]), None)
