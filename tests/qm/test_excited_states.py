"""Excited states by linear response: energies, forces, characters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pyscf import lib, scf

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import EvaluationError, PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.qm import TDA, TDDFT, PySCFPotential
from qmmlmm.qm.states.linear_response import orbital_gaps
from qmmlmm.qm.states.state_overlap import basis_overlap, snapshot, state_overlaps
from tests.finite_differences import central_difference

STEP = 1e-2  # bohr, along directions of norm 1, with four points: in error by 1e-8 hartree/bohr
EXACT = 1e-6  # hartree/bohr: energies are converged to 1e-9 hartree
NO_NET_FORCE = 1e-8  # hartree/bohr: what the amplitudes and the response of the orbitals miss, 1e-9, is in it
TIGHT = {"conv_tol": 1e-12, "embedding_grid_level": 0}
SAME_ENERGY = 3e-7  # hartree: of first order in what orbitals and amplitudes miss, 1e-6


def excited(method, settings, state, **changes):
    settings = replace(settings, conv_tol=1e-9)
    return PySCFPotential(method, "sto-3g", excited=settings, state=state, grid_level=0, **TIGHT, **changes)


def check_forces(case, potential, step=STEP):
    """Along one direction each: the atoms, the compact charges, and those of the smooth potential."""
    evaluator = potential.create_evaluator(case.specification)
    field, broad = case.field, case.field.smooth_potential
    result = evaluator.evaluate(case.geometry, field)
    random = np.random.default_rng(3)
    for gradient, positions, energy in (
        (result.gradient, case.positions, lambda r: evaluator.evaluate(Geometry(r), field).energy),
        (
            result.charge_gradient,
            field.positions,
            lambda r: evaluator.evaluate(case.geometry, replace(field, positions=r)).energy,
        ),
        (
            broad.gradient(result),
            broad.positions,
            lambda r: (
                evaluator.evaluate(case.geometry, replace(field, smooth_potential=replace(broad, positions=r))).energy
            ),
        ),
    ):
        direction = random.normal(size=positions.shape)
        direction /= np.linalg.norm(direction)
        assert np.sum(gradient * direction) == pytest.approx(
            central_difference(energy, positions, direction, step, points=4), abs=EXACT
        )
    net = result.gradient.sum(axis=0) + result.charge_gradient.sum(axis=0) + broad.gradient(result).sum(axis=0)
    np.testing.assert_allclose(net, 0.0, atol=NO_NET_FORCE)
    return result


@pytest.mark.parametrize("settings", [TDA(3), TDA(3, "triplet"), TDDFT(3), TDDFT(3, "triplet")])
def test_forces_on_atoms_and_charges_are_derivatives_for_hartree_fock(water, settings):
    check_forces(water, excited("hf", settings, 1))


@pytest.mark.parametrize(("multiplicity", "settings"), [(3, TDA(3)), (1, TDDFT(3))])
def test_forces_are_derivatives_for_an_unrestricted_reference(water, multiplicity, settings):
    case = replace(water, specification=replace(water.specification, multiplicity=multiplicity))
    result = check_forces(case, excited("hf", settings, 1, unrestricted=True))
    assert result.results["spin_populations"].sum() == pytest.approx(multiplicity - 1, abs=1e-9)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("lda,vwn", TDDFT(3)), ("pbe", TDA(3, "triplet")), ("b3lyp", TDDFT(3)), ("cam-b3lyp", TDA(3)), ("r2scan", TDA(3))],
)
def test_forces_are_derivatives_for_functionals_on_the_coarsest_grid(water, method, settings):
    # The second derivatives of meta-GGA functionals have kinks, and the error goes with the step.
    check_forces(water, excited(method, settings, 1), 1e-3 if method == "r2scan" else STEP)


def test_forces_are_derivatives_for_a_functional_with_unrestricted_orbitals(water):
    case = replace(water, specification=replace(water.specification, multiplicity=3))
    check_forces(case, excited("pbe0", TDDFT(2), 1))


def test_forces_of_the_ground_state_among_others_are_those_of_the_ground_state_alone(water):
    alone = PySCFPotential("hf", "sto-3g", density_fit=False, **TIGHT).create_evaluator(water.specification)
    expected = alone.evaluate(water.geometry, water.field)
    result = excited("hf", TDA(3), 0).create_evaluator(water.specification).evaluate(water.geometry, water.field)
    assert result.energy == pytest.approx(expected.energy, abs=1e-10)
    np.testing.assert_allclose(result.gradient, expected.gradient, atol=1e-7)


@pytest.mark.parametrize("state", [0, 1])
def test_the_relaxed_density_has_all_electrons_and_the_dipole_is_the_response_to_a_field(water, state):
    # The derivative of the energy by a uniform field, made by far charges, is the dipole of the relaxed density.
    potential = excited("hf", TDA(2), state)
    evaluator = potential.create_evaluator(water.specification)
    result = evaluator.evaluate(water.geometry, water.field)
    assert result.results["mulliken_charges"].sum() == pytest.approx(0.0, abs=1e-10)
    far = 1e4
    places = np.array([[0.0, 0.0, far], [0.0, 0.0, -far]]) + result.results["dipole_origin"]

    def energy(strength):
        # Charges q at distance d make a field 2 q/d^2 along the axis.
        charges = 0.5 * far**2 * strength * np.array([-1.0, 1.0])
        field = replace(
            water.field,
            positions=np.concatenate([water.field.positions, places]),
            point_charges=np.concatenate([water.field.point_charges, charges]),
            gaussian_charges=np.concatenate([water.field.gaussian_charges, [0.0, 0.0]]),
        )
        return evaluator.evaluate(water.geometry, field).energy

    slope = central_difference(energy, 0.0, 1.0, 2e-3)
    assert result.results["dipole"][2] == pytest.approx(-slope, abs=2e-5)


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (TDA(4), lambda mf: mf.TDA()),
        (TDA(4, "triplet"), lambda mf: mf.TDA()),
        (TDDFT(4), lambda mf: mf.TDHF()),
    ],
)
def test_without_a_field_energies_and_transition_moments_are_those_of_pyscf(water, method, reference):
    potential = excited("hf", method, 1)
    evaluator = potential.create_evaluator(water.specification)
    states = evaluator.evaluate(water.geometry, None).states
    mean_field = scf.RHF(evaluator.mean_field(water.geometry, None).mol).run(conv_tol=1e-12)
    other = reference(mean_field).set(nstates=3, conv_tol=1e-7, singlet=method.spin != "triplet").run()
    np.testing.assert_allclose(states.state_energies[1:], other.e_tot, atol=SAME_ENERGY)
    np.testing.assert_allclose(states.oscillator_strengths[1:], other.oscillator_strength(), atol=1e-5)
    np.testing.assert_allclose(abs(states.transition_dipoles[1:]), abs(other.transition_dipole()), atol=1e-4)


def test_the_energy_alone_is_that_of_the_state(water):
    evaluator = excited("hf", TDA(3), 2).create_evaluator(water.specification)
    expected = evaluator.evaluate(water.geometry, water.field).energy
    assert evaluator.energy(water.geometry, water.field) == pytest.approx(expected, abs=1e-9)


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state": 1}, "state=1, .*without excited.*TDA"),
        ({"follow_state": True}, "without excited"),
        ({"excited": "tda"}, r"excited is TDA\(...\), TDDFT\(...\), DeltaSCF\(...\) or CASSCF"),
        ({"excited": TDA(3), "state": 3}, "state 3 does not exist: n_states=3 gives states 0 .* to 2; raise n_states"),
        ({"excited": TDA(3), "state": 1, "density_fit": True}, "no gradient for it; leave density_fit out"),
        ({"excited": TDA(3), "state": 1, "auxiliary_basis": "weigend"}, "no gradient for it; leave density_fit out"),
        ({"excited": TDA(3), "method": "wb97x-v"}, "non-local correlation.*'cam-b3lyp'"),
        ({"excited": TDA(3), "follow_state": "yes"}, "follow_state is True or False"),
    ],
)
def test_a_state_that_cannot_be_right_is_refused(settings, message):
    with pytest.raises(PotentialError, match=message):
        PySCFPotential(**({"method": "hf", "basis": "6-31g"} | settings))


@pytest.mark.parametrize("method", [TDA, TDDFT])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_states": 1}, "n_states counts all states, .* at least 2, got 1"),
        ({"n_states": 3, "spin": "tripplet"}, "spin is 'singlet' or 'triplet'.*'tripplet'.*triplet"),
        ({"n_states": 3, "conv_tol": 0.1}, "conv_tol lies above 0"),
        ({"n_states": 3, "max_cycle": 0}, "max_cycle is a whole number of 1 or more"),
    ],
)
def test_settings_of_excited_states_that_make_no_sense_are_refused(method, settings, message):
    with pytest.raises(PotentialError, match=message):
        method(**settings)


def test_a_spin_with_an_unrestricted_reference_is_refused(radical):
    with pytest.raises(PotentialError, match="spin='triplet' is for excited states of a restricted singlet"):
        PySCFPotential("hf", "sto-3g", excited=TDA(3, "triplet")).check(radical.specification)


def test_density_fitting_is_left_to_the_ground_state_unless_it_is_asked_for():
    assert PySCFPotential("hf", "sto-3g").fits_density
    assert not PySCFPotential("hf", "sto-3g", excited=TDA(2)).fits_density
    assert PySCFPotential("hf", "sto-3g", excited=TDA(2), density_fit=True).fits_density


HYDROGEN = RegionSpecification("hydrogen", np.array([1, 1]), 0, 1)


def test_more_states_than_the_basis_set_has_are_refused():
    evaluator = PySCFPotential("hf", "sto-3g", excited=TDA(3)).create_evaluator(HYDROGEN)
    with pytest.raises(EvaluationError, match="asks for 2 excited states, but the basis set has 1 single excitations"):
        evaluator.evaluate(Geometry(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]])), None)


def test_a_stretched_bond_is_an_error_in_tddft_and_a_negative_energy_in_tda(tmp_path):
    stretched = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    common = {"state": 1, "failure_directory": tmp_path}
    full = PySCFPotential("hf", "sto-3g", excited=TDDFT(2, "triplet"), **common).create_evaluator(HYDROGEN)
    with pytest.raises(EvaluationError, match="(?s)not stable.*imaginary.*failed_001.xyz.*use TDA"):
        full.evaluate(Geometry(stretched), None)
    half = PySCFPotential("hf", "sto-3g", excited=TDA(2, "triplet"), **common).create_evaluator(HYDROGEN)
    singlet, energy = half.evaluate(Geometry(stretched), None).states.state_energies
    # With one orbital each, the triplet of two separated atoms is exact, and the restricted singlet lies above.
    triplet = PySCFPotential("hf", "sto-3g", density_fit=False).create_evaluator(replace(HYDROGEN, multiplicity=3))
    assert energy < singlet
    assert energy == pytest.approx(triplet.evaluate(Geometry(stretched), None).energy, abs=SAME_ENERGY)


# --- from one geometry to the next ---


def products_of(case, potential, count, forgetful=False):
    evaluator = potential.create_evaluator(case.specification)
    found = []
    for step in range(count):
        if forgetful:
            evaluator.forget()
        result = evaluator.evaluate(Geometry(case.positions * (1.0 + 0.003 * step)), case.field)
        found.append((result.results["response_products"], result.energy))
    return found


@pytest.mark.parametrize("settings", [TDA(4), TDDFT(4)])
def test_the_last_states_save_products_and_change_nothing(water, settings):
    potential = PySCFPotential("hf", "6-31g", excited=settings, state=1, conv_tol=1e-11)
    warm, fresh = (products_of(water, potential, 4, forgetful) for forgetful in (False, True))
    assert sum(count for count, _ in warm[2:]) < 0.85 * sum(count for count, _ in fresh[2:])
    for (_, first), (_, second) in zip(warm, fresh, strict=True):
        assert first == pytest.approx(second, abs=SAME_ENERGY)


def test_after_forgetting_results_are_those_of_a_new_evaluator_bit_by_bit(water):
    potential = PySCFPotential("hf", "sto-3g", excited=TDA(3), state=1)
    used, new = (potential.create_evaluator(water.specification) for _ in range(2))
    used.evaluate(Geometry(water.positions * 1.01), water.field)
    used.forget()
    with lib.with_omp_threads(1):  # sums over threads come in any order
        first, second = (evaluator.evaluate(water.geometry, water.field) for evaluator in (used, new))
    assert first.energy == second.energy
    np.testing.assert_array_equal(first.gradient, second.gradient)
    assert first.states.state_overlaps is None


def test_overlaps_of_states_with_themselves_are_one_and_phases_are_kept(water):
    evaluator = excited("hf", TDDFT(4), 1).create_evaluator(water.specification)
    dipoles = []
    for step in range(3):
        # A shift of the whole region is no change, and a turn of a degree a small one.
        states = evaluator.evaluate(Geometry(water.positions + 20.0 * step), None).states
        dipoles.append(states.transition_dipoles)
    np.testing.assert_allclose(np.diag(states.state_overlaps), 1.0, atol=1e-6)
    np.testing.assert_allclose(dipoles[0], dipoles[2], atol=1e-6)


def brute_force_overlap(old, new, basis):
    """Overlap of two sums of single excitations, each determinant written out."""

    orbitals = [[np.hstack([states.occupied[s], states.empty[s]]) for s in range(2)] for states in (old, new)]
    overlap = [orbitals[0][s].T @ basis @ orbitals[1][s] for s in range(2)]
    counts = [old.occupied[s].shape[1] for s in range(2)]

    def configurations(states, amplitudes):
        for spin in range(2):
            for (i, a), value in np.ndenumerate(amplitudes[spin]):
                lists = [list(range(n)) for n in counts]
                lists[spin][i] = counts[spin] + a
                yield value, lists

    def expand(states):
        yield [(1.0, [list(range(n)) for n in counts])]
        for parts in states.excitations:
            yield list(configurations(states, parts))

    def value(first, second):
        return sum(
            c * d * np.prod([np.linalg.det(overlap[s][np.ix_(p[s], q[s])]) for s in range(2)])
            for c, p in first
            for d, q in second
        )

    news = list(expand(new))
    return np.array([[value(first, second) for second in news] for first in expand(old)])


@pytest.mark.parametrize("spin", ["singlet", "triplet", None])
def test_overlaps_of_states_are_those_of_all_their_determinants(water, spin):
    specification = replace(water.specification, multiplicity=3 if spin is None else 1)
    evaluator = PySCFPotential("hf", "sto-3g", excited=TDA(3, spin)).create_evaluator(specification)
    found = []
    for factor in (1.0, 1.08):
        mean_field = evaluator.mean_field(Geometry(factor * water.positions), water.field)
        mean_field.kernel()
        shapes = [(len(o), len(e)) for o, e in orbital_gaps(mean_field)]
        random = np.random.default_rng(7)
        excitations = [tuple(random.normal(size=shape) for shape in shapes) for _ in range(2)]
        found.append(snapshot(mean_field, excitations, triplet=spin == "triplet"))
    both = [
        states
        if spin is None
        else replace(
            states,
            occupied=states.occupied * 2,
            empty=states.empty * 2,
            excitations=[(x, -x if spin == "triplet" else x) for (x,) in states.excitations],
        )
        for states in found
    ]
    expected = brute_force_overlap(*both, basis_overlap(*found))
    np.testing.assert_allclose(state_overlaps(*found), expected, atol=1e-12)


def test_dispersion_is_in_the_forces_of_excited_states(water):
    pytest.importorskip("pyscf.dispersion")
    found = {}
    for method in ("pbe", "pbe-d3bj"):
        for state in (0, 1):
            evaluator = excited(method, TDA(2), state).create_evaluator(water.specification)
            found[method, state] = evaluator.evaluate(water.geometry, None).gradient
    added = [found["pbe-d3bj", state] - found["pbe", state] for state in (0, 1)]
    np.testing.assert_allclose(added[1], added[0], atol=1e-8)
    assert abs(added[0]).max() > 1e-6


# --- states that cross ---

TWO_HYDROGENS = RegionSpecification("two molecules", np.array([1, 1, 1, 1]), 0, 1)


def two_molecules(bond):
    """Two hydrogen molecules, far from each other; the excited states of the two cross where the bonds are alike."""
    return np.array([[0.0, 0.0, 0.0], [0.0, 0.0, bond], [0.0, 40.0, 0.0], [0.3, 40.0, 1.5]])


def through_the_crossing(**changes):
    potential = PySCFPotential("hf", "sto-3g", excited=TDA(changes.pop("n_states", 3)), **changes)
    evaluator = potential.create_evaluator(TWO_HYDROGENS)
    return [evaluator.evaluate(Geometry(two_molecules(bond)), None) for bond in (1.40, 1.45, 1.60, 1.65)]


def test_a_followed_state_keeps_its_character_through_a_crossing_which_is_logged(caplog):
    with caplog.at_level("WARNING", logger="qmmlmm.qm"):
        results = through_the_crossing(state=1, follow_state=True)
    assert [result.states.state for result in results] == [1, 1, 2, 2]
    np.testing.assert_array_equal(results[-1].states.state_order, [0, 2, 1])
    assert "position 1 in the order of energy is taken by the state that was number 2" in caplog.text
    for result in results:
        assert result.energy == result.states.state_energies[result.states.state]
    # The excitation stays on the second molecule, and the force on the first is that of its ground state.
    ground = PySCFPotential("hf", "sto-3g", density_fit=False, conv_tol=1e-11).create_evaluator(TWO_HYDROGENS)
    at_rest = ground.evaluate(Geometry(two_molecules(1.65)), None).gradient
    np.testing.assert_allclose(results[-1].gradient[:2], at_rest[:2], atol=1e-4)
    assert abs(results[-1].gradient[2:] - at_rest[2:]).max() > 0.1


def test_a_state_that_is_not_followed_is_the_one_at_its_place():
    results = through_the_crossing(state=1)
    assert [result.states.state for result in results] == [1, 1, 1, 1]
    np.testing.assert_array_equal(results[-1].states.state_order, [0, 2, 1])


def test_a_followed_state_that_leaves_those_computed_is_an_error(tmp_path):
    with pytest.raises(EvaluationError, match=r"(?s)lost its character.*failed_001\.xyz.*Raise n_states"):
        through_the_crossing(state=1, follow_state=True, n_states=2, failure_directory=tmp_path)


def test_after_a_jump_states_are_counted_by_energy_again_and_that_is_logged(caplog):
    evaluator = PySCFPotential("hf", "sto-3g", excited=TDA(3), state=1, follow_state=True)
    evaluator = evaluator.create_evaluator(TWO_HYDROGENS)
    evaluator.evaluate(Geometry(two_molecules(1.4)), None)
    with caplog.at_level("WARNING", logger="qmmlmm.qm"):
        states = evaluator.evaluate(Geometry(two_molecules(2.4)), None).states
    assert states.state == 1
    assert "the geometry jumped" in caplog.text
