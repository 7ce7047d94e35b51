"""The self-consistent field on two grids has the energy and the forces of the full one."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm import PySCFPotential
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.qm.functional.two_grids import GridDifference, TwoGridIntegrator
from qmmlmm.qm.scf.convergence import RENEWALS, ScfRecord, converge
from qmmlmm.qm.scf.mean_field import create_mean_field, create_molecule

ENERGY = 1e-9
"""hartree: ten times the limit on the estimated error."""
FORCES = 1e-6
"""hartree/bohr: orbitals converged to a gradient of 3e-6 by two ways."""
TOLERANCE = 1e-11
"""hartree."""

NUMBERS = np.array([8, 6, 1, 1])
FORMALDEHYDE = np.array([[0.0, 0.0, 1.27], [0.0, 0.0, -1.0], [1.77, 0.1, -2.1], [-1.77, 0.0, -2.1]])


def specification(multiplicity=1):
    return RegionSpecification("region", NUMBERS, 0, multiplicity)


def results(multiplicity=1, steps=2, **settings):
    potential = PySCFPotential(basis="6-31g", conv_tol=TOLERANCE, **settings)
    evaluator = potential.create_evaluator(specification(multiplicity))
    rng = np.random.default_rng(2)
    walk = FORMALDEHYDE + 0.02 * np.cumsum(rng.normal(size=(steps, 4, 3)), axis=0)
    return [evaluator.evaluate(Geometry(positions), None) for positions in walk]


@pytest.mark.slow
@pytest.mark.parametrize("multiplicity", [1, 3])
@pytest.mark.parametrize("method", ["lda,vwn", "b3lyp", "r2scan"])
def test_energies_and_forces_are_those_of_pyscfs_own_code(method, multiplicity):
    for ours, theirs in zip(
        results(multiplicity, method=method), results(multiplicity, method=method, accelerated=False), strict=True
    ):
        assert ours.energy == pytest.approx(theirs.energy, abs=ENERGY)
        np.testing.assert_allclose(ours.gradient, theirs.gradient, rtol=0.0, atol=FORCES)
        np.testing.assert_allclose(
            ours.results["mulliken_charges"], theirs.results["mulliken_charges"], rtol=0.0, atol=1e-5
        )


def mean_field_and_integrator(difference, method="b3lyp"):
    potential = PySCFPotential(method, "6-31g")
    molecule = create_molecule(potential, specification(), ["O", "C", "H", "H"], {}, FORMALDEHYDE)
    field = create_mean_field(potential, molecule, difference=difference)
    return field, field._numint


def run(field):
    return converge(field, [], "term", lambda: "saved", ScfRecord())


def test_the_full_grid_is_evaluated_a_few_times_from_a_fresh_guess_and_the_difference_is_measured():
    difference = GridDifference()
    field, integrator = mean_field_and_integrator(difference)
    outcome = run(field)
    assert isinstance(integrator, TwoGridIntegrator)
    assert 2 <= integrator.full_evaluations <= 5 < outcome["scf_cycles"]
    assert 0.0 < difference.ratio < 0.1
    assert integrator.is_exact_enough(field.make_rdm1())


def test_a_result_that_is_not_exact_enough_is_iterated_on():
    exact, _ = mean_field_and_integrator(None)
    run(exact)
    # A ratio of zero says that the first reference is good for ever; the truth is measured afterwards.
    blind = GridDifference(ratio=0.0)
    field, integrator = mean_field_and_integrator(blind)
    run(field)
    assert integrator.full_evaluations == 1
    assert abs(field.e_tot - exact.e_tot) > 1e-7
    blind.ratio = 1e-3
    run(field)
    assert integrator.full_evaluations > 1
    assert field.e_tot == pytest.approx(exact.e_tot, abs=ENERGY)


def test_where_the_grids_do_not_agree_the_full_one_takes_over(monkeypatch):
    exact, _ = mean_field_and_integrator(None)
    run(exact)
    field, integrator = mean_field_and_integrator(GridDifference())
    monkeypatch.setattr(TwoGridIntegrator, "_suffices", lambda self, distance: False)
    record = ScfRecord()
    outcome = converge(field, [], "term", lambda: "saved", record)
    assert record.failed["fresh guess"] == 1
    assert outcome["scf_guess"] == "damping and level shift"
    assert integrator.full_evaluations > RENEWALS
    assert field.e_tot == pytest.approx(exact.e_tot, abs=ENERGY)


def test_a_change_that_round_off_hides_is_not_measured():
    difference = GridDifference(ratio=1e-3)
    difference.measured(change=1e-9, distance=1e-7)
    assert difference.ratio == 1e-3
    difference.measured(change=1e-5, distance=0.1)
    assert difference.ratio == pytest.approx(1e-4)


def test_the_potential_is_the_derivative_of_the_energy():
    field, integrator = mean_field_and_integrator(GridDifference(ratio=0.0))
    density = field.get_init_guess()
    field.grids.build()
    integrator.nr_rks(field.mol, field.grids, "b3lyp", density)
    rng = np.random.default_rng(3)
    change = rng.normal(size=density.shape)
    change = 1e-4 * (change + change.T)
    other = density + 3.0 * change
    _, _, potential = integrator.nr_rks(field.mol, field.grids, "b3lyp", other)
    energies = [integrator.nr_rks(field.mol, field.grids, "b3lyp", other + sign * change)[1] for sign in (1, -1)]
    assert (energies[0] - energies[1]) / 2.0 == pytest.approx(float(np.sum(potential * change)), rel=1e-5)
    assert integrator.full_evaluations == 1


def test_the_switch_is_a_flag():
    with pytest.raises(PotentialError, match="accelerated"):
        PySCFPotential("b3lyp", "6-31g", accelerated="no")
    potential = PySCFPotential("b3lyp", "6-31g", accelerated=False)
    molecule = create_molecule(potential, specification(), ["O", "C", "H", "H"], {}, FORMALDEHYDE)
    assert not isinstance(
        create_mean_field(potential, molecule, difference=GridDifference())._numint, TwoGridIntegrator
    )
