"""SA-CASSCF: forces and couplings on region and surroundings, states from step to step, active spaces, errors."""

import numpy as np
import pytest
from pyscf.scf import _vhf

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import ConvergenceError, EvaluationError, HamiltonianError, PotentialError, RegionError
from qmmlmm.geometry import Geometry
from qmmlmm.qm import CASSCF, PySCFPotential
from qmmlmm.qm.excited import spin_states
from qmmlmm.qm.scf.convergence import ScfRecord
from qmmlmm.qm.scf.reference import Reference
from qmmlmm.qm.states import casscf_states, derivative_integrals
from qmmlmm.qm.states.casscf_response import casscf_coupling, casscf_state
from qmmlmm.qm.states.electronic_state import ElectronicState
from qmmlmm.qm.states.full_ci import full_ci
from qmmlmm.units import ANGSTROM_IN_BOHR, NM_IN_BOHR
from systems.methanimine_water import EDGE, METHANIMINE, SOLUTE, build, near_and_far
from tests.contexts import energy_and_forces, make_context
from tests.finite_differences import central_difference

EXACT = 1e-6
"""hartree/bohr. The energy of one state is of first order in the orbitals that are left to converge: with conv_tol 1e-6
it has a noise of 1e-8 hartree, and steps are as long as four points allow."""
STEPS = {"region": 2e-2, "near": 4e-2, "far": 1e-1}  # bohr, along directions of norm 1, with four points
COUPLING = 2e-4
"""1/bohr, of values up to 0.07: the orbitals are converged to 1e-6, and the distance is finite."""
SAME_INTEGRALS = 1e-10
"""hartree/bohr: the response is solved to 1e-9 of its size in both cases, from the same integrals in another order."""
BALANCED = 1e-8  # hartree/bohr, without a box: what the response leaves
SPACE = CASSCF(2, 4, 3)
NUMBERS = np.array([6, 7, 1, 1, 1])
PLACES = np.array([atom[1:4] for atom in METHANIMINE]) * ANGSTROM_IN_BOHR


def potential(settings=SPACE, state=1, **more):
    return PySCFPotential("hf", "sto-3g", excited=settings, state=state, embedding_grid_level=0, conv_tol=1e-11, **more)


def evaluator(settings=SPACE, state=1, charge=0, multiplicity=1):
    return potential(settings, state).create_evaluator(RegionSpecification("imine", NUMBERS, charge, multiplicity))


def mixed_system(state=1):
    topology, system, positions = build()
    region = Region("imine", SOLUTE, charge=0, multiplicity=1)
    term = Term(potential(state=state), region, embedding="electrostatic")
    return create_mixed_system(topology, system, Hamiltonian([term])), positions


def term_of(state=1):
    """The term; all particles, bohr, and their box."""
    mixed, positions = mixed_system(state)
    return mixed.evaluated_term("imine/QM"), positions * NM_IN_BOHR, np.eye(3) * EDGE * NM_IN_BOHR


@pytest.fixture
def converged(monkeypatch):
    """The CASSCF objects of PySCF whose states were asked for, the last one at the end."""
    found = []

    def noted(casscf, *arguments):
        found.append(casscf)
        return casscf_state(casscf, *arguments)

    monkeypatch.setattr(casscf_states, "casscf_state", noted)
    return found


def groups(positions):
    near, far = near_and_far(positions / NM_IN_BOHR)
    return {"region": list(SOLUTE), "near": near, "far": far}


def unit_direction(positions, atoms, seed=5):
    direction = np.zeros_like(positions)
    direction[atoms] = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    return direction / np.linalg.norm(direction)


@pytest.mark.parametrize("name", ["region", "near", "far"])
def test_forces_are_derivatives_in_a_box(name):
    term, positions, box = term_of()
    _, gradient = term.energy_and_gradient(Geometry(positions, box))
    atoms = groups(positions)[name]
    direction = unit_direction(positions, atoms)

    def energy(places):
        return term.energy_and_gradient(Geometry(places, box))[0]

    slope = central_difference(energy, positions, direction, STEPS[name], points=4)
    assert (gradient * direction).sum() == pytest.approx(slope, abs=EXACT)
    assert abs(gradient[atoms]).max() > 10 * EXACT


def energy_alone(casscf, index, term, integrals):
    """Stand in for `casscf_state` where nothing but the energy is looked at: the response is most of the time."""
    n = len(casscf.mo_coeff)
    return ElectronicState(float(casscf.e_states[index]), np.zeros((casscf.mol.natm, 3)), np.zeros((n, n)))


@pytest.mark.slow
def test_forces_on_all_states_are_derivatives_for_every_atom(monkeypatch):
    # Atoms of the region along every axis, which all terms of a moving basis have a part in; those of the surroundings,
    # which one contraction of the density serves, along a direction of their own with a part of every axis.
    term, positions, box = term_of()
    gradients = []
    for state in (0, 1):
        term.evaluator.select_state(state)
        gradients.append(term.energy_and_gradient(Geometry(positions, box))[1])
    monkeypatch.setattr(casscf_states, "casscf_state", energy_alone)

    def energies(place):
        energy, _ = term.energy_and_gradient(Geometry(place, box))
        found = term.last.states.state_energies
        return energy + found - found[1]

    random = np.random.default_rng(3)
    errors = {}
    for name, atoms in groups(positions).items():
        for atom in atoms:
            axes = np.eye(3) if name == "region" else [random.choice([-1.0, 1.0], size=3) / np.sqrt(3.0)]
            for axis in axes:
                move = np.zeros_like(positions)
                move[atom] = axis
                slopes = central_difference(energies, positions, move, STEPS[name], points=4)
                for state, slope in enumerate(slopes):
                    wrong = abs(gradients[state][atom] @ axis - slope)
                    errors[state, name] = max(wrong, errors.get((state, name), 0.0))
    print(errors)
    assert max(errors.values()) < EXACT


def test_the_relaxed_density_holds_all_electrons_and_forces_balance(converged):
    computed = evaluator()
    found = computed.evaluate(Geometry(PLACES), None)
    assert abs(found.gradient.sum(axis=0)).max() < BALANCED
    casscf = converged[-1]
    overlap = casscf.mol.intor_symmetric("int1e_ovlp")
    state = casscf_state(casscf, 1, "imine")
    assert np.sum(state.density * overlap) == pytest.approx(16.0, abs=1e-10)
    # The density is the derivative by the one-electron operator: that of a state alone is another one.
    coupling = casscf_coupling(casscf, 0, 1, "imine")
    assert np.sum(coupling.density * overlap) == pytest.approx(0.0, abs=1e-10)
    assert abs(coupling.gradient.sum(axis=0)).max() < BALANCED


def test_the_density_is_the_derivative_by_the_one_electron_operator(converged):
    computed = evaluator()
    computed.evaluate(Geometry(PLACES), None)
    density = casscf_state(converged[-1], 1, "imine").density
    n = len(density)
    change = np.random.default_rng(0).normal(size=(n, n))
    change = change + change.T

    def energy(strength):
        mean_field = computed.mean_field(Geometry(PLACES), None)
        core = mean_field.get_hcore() + strength * change
        mean_field.get_hcore = lambda mol=None: core
        solver = casscf_states.CasscfStates(SPACE, 1, False, "imine")
        return solver.energy(Reference(mean_field, [], "imine", str, ScfRecord(), lambda: None))

    expected = 1e-3 * np.sum(density * change)
    assert 1e-3 * central_difference(energy, 0.0, 1.0, 1e-3) == pytest.approx(expected, abs=2e-6)
    assert abs(expected) > 1e-3


def test_integrals_that_are_kept_for_gradient_and_couplings_change_nothing(converged, monkeypatch):
    computed = evaluator()
    computed.evaluate(Geometry(PLACES), None)
    casscf, calls = converged[-1], []
    intor = type(casscf.mol).intor

    def counted(molecule, name, *arguments, **keywords):
        calls.append(name)
        return intor(molecule, name, *arguments, **keywords)

    def counted_direct(name, *arguments, **keywords):
        calls.append(name.removesuffix("_sph"))
        return direct(name, *arguments, **keywords)

    monkeypatch.setattr(type(casscf.mol), "intor", counted)
    direct = _vhf.direct_mapdm
    monkeypatch.setattr(_vhf, "direct_mapdm", counted_direct)

    def both(share):
        calls.clear()
        monkeypatch.setattr(derivative_integrals, "SHARE", share)
        integrals = derivative_integrals.DerivativeIntegrals(casscf.mol)
        found = [casscf_state(casscf, 1, "imine", integrals), casscf_coupling(casscf, 0, 1, "imine", integrals)]
        return [state.gradient for state in found], calls.count("int2e_ip1")

    kept, once = both(0.4)
    again, often = both(0.0)
    assert once == 1
    assert often > 4 * len(NUMBERS)
    for one, other in zip(kept, again, strict=True):
        assert one == pytest.approx(other, abs=SAME_INTEGRALS)
    assert abs(kept[1]).max() > 1e-3


def test_couplings_are_those_of_overlaps_between_displaced_geometries(converged):
    computed = evaluator(CASSCF(3, 4, 3))
    computed.evaluate(Geometry(PLACES), None)
    casscf = converged[-1]
    vectors = [vector.copy() for vector in casscf.ci]
    direction = unit_direction(PLACES, list(range(5)))
    direction -= direction.mean(axis=0)  # overlaps do not feel translations
    step = 1.5e-2
    computed.evaluate(Geometry(PLACES - step * direction), None)
    overlaps = computed.evaluate(Geometry(PLACES + step * direction), None).states.state_overlaps
    casscf.ci = vectors
    for first, second in ((0, 1), (1, 0), (1, 2), (0, 2)):
        found = casscf_coupling(casscf, first, second, "imine", whole=True)
        value = np.sum(found.gradient * direction) / found.energy
        # What both have of second order in the step falls out.
        overlap = 0.5 * (overlaps[first, second] - overlaps[second, first])
        # Cores that move make all overlaps smaller.
        overlap /= np.sqrt(overlaps[first, first] * overlaps[second, second])
        assert value == pytest.approx(overlap / (2 * step), abs=COUPLING)
    assert abs(overlaps[0, 1]) / (2 * step) > 0.01


def test_couplings_on_charges_are_those_of_overlaps():
    term, positions, box = term_of()
    geometry = Geometry(positions, box)
    term.energy_and_gradient(geometry)
    # Per bohr.
    coupling, opposite = (term.coupling(*pair, geometry.in_nm()) / NM_IN_BOHR for pair in ((0, 1), (1, 0)))
    assert coupling == pytest.approx(-opposite, abs=1e-6)
    near = near_and_far(positions / NM_IN_BOHR)[0]
    direction = unit_direction(positions, near)
    step = 0.05
    term.energy_and_gradient(Geometry(positions - step * direction, box))
    term.energy_and_gradient(Geometry(positions + step * direction, box))
    overlaps = term.last.states.state_overlaps
    # Nothing of the basis moves: the part without the moving functions is all.
    assert np.sum(coupling * direction) == pytest.approx((overlaps[0, 1] - overlaps[1, 0]) / (4 * step), abs=1e-5)
    assert abs(np.sum(coupling * direction)) > 1e-4


def test_a_parameter_of_the_context_chooses_the_state_and_cached_results_are_of_their_state():
    mixed, positions = mixed_system(state=0)
    runner = mixed.term("imine/QM").runner
    context = make_context(mixed.system, positions)
    assert context.getParameter("imine/QM state") == 0.0
    ground, ground_forces = energy_and_forces(context)
    energies = mixed.results("imine/QM")["state_energies"]
    mixed.select_state(context, "imine/QM", 1)
    excited, excited_forces = energy_and_forces(context)
    assert runner.evaluations == 2
    mixed.select_state(context, "imine/QM", 0)
    again, forces_again = energy_and_forces(context)
    assert runner.evaluations == 2
    assert again == ground
    assert (forces_again == ground_forces).all()
    assert abs(excited_forces - ground_forces)[list(SOLUTE)].max() > 100.0
    assert excited - ground == pytest.approx((energies[1] - energies[0]) * 2625.4996, rel=1e-6)
    with pytest.raises(HamiltonianError, match="states 0 to 1"):
        mixed.select_state(context, "imine/QM", 2)


def test_guesses_of_the_last_geometry_are_used_and_signs_go_on():
    computed = evaluator()
    first = computed.evaluate(Geometry(PLACES), None)
    moved = PLACES + 0.02 * unit_direction(PLACES, [0, 1, 2])
    second = computed.evaluate(Geometry(moved), None)
    assert first.results["casscf_guess"] == "frontier orbitals"
    assert second.results["casscf_guess"] == "last geometry"
    assert second.results["casscf_cycles"] < first.results["casscf_cycles"]
    assert np.diag(second.states.state_overlaps) == pytest.approx([1.0, 1.0], abs=1e-2)
    fresh = evaluator().evaluate(Geometry(moved), None)
    assert second.states.state_energies == pytest.approx(fresh.states.state_energies, abs=1e-7)


def test_steps_of_a_trajectory_start_from_extrapolated_orbitals():
    # A step of 0.5 fs at 300 K moves the hydrogen atoms by 0.02 bohr.
    computed, direction = evaluator(), unit_direction(PLACES, list(range(5)))

    def at(step):
        return PLACES + 0.04 * (step + 0.02 * step**2) * direction

    for step in range(4):
        found = computed.evaluate(Geometry(at(step)), None)
    assert found.results["casscf_guess"] == "last geometries"
    memory = computed.memory()
    alone = evaluator()
    alone.recall(memory)
    nearest = alone.evaluate(Geometry(at(4)), None)
    found = computed.evaluate(Geometry(at(4)), None)
    assert nearest.results["casscf_guess"] == "last geometry"
    assert found.results["casscf_cycles"] < nearest.results["casscf_cycles"]
    assert found.states.state_energies == pytest.approx(nearest.states.state_energies, abs=1e-7)
    # A jump ends it, and so does a new beginning.
    back = computed.evaluate(Geometry(at(0)), None)
    assert back.results["casscf_guess"] == "last geometry"
    computed.forget()
    assert computed.evaluate(Geometry(at(1)), None).results["casscf_guess"] == "frontier orbitals"


def test_extrapolated_orbitals_that_lead_to_another_active_space_give_way_to_those_of_the_last_geometry(monkeypatch):
    computed, direction = evaluator(), unit_direction(PLACES, [0, 1, 2])
    for step in range(2):
        computed.evaluate(Geometry(PLACES + 0.02 * step * direction), None)
    shares = iter([0.1, 1.0])
    overlaps_of = casscf_states.casscf_overlaps
    monkeypatch.setattr(casscf_states, "casscf_overlaps", lambda *a: (overlaps_of(*a)[0], next(shares)))
    found = computed.evaluate(Geometry(PLACES + 0.04 * direction), None)
    assert found.results["casscf_guess"] == "last geometry"
    fresh = evaluator().evaluate(Geometry(PLACES + 0.04 * direction), None)
    assert found.states.state_energies == pytest.approx(fresh.states.state_energies, abs=1e-7)


def test_memory_goes_to_another_process_with_the_signs():
    computed = evaluator()
    computed.evaluate(Geometry(PLACES), None)
    memory = computed.memory()
    memory["vectors"] = -memory["vectors"]
    other = evaluator()
    other.recall(memory)
    moved = PLACES + 0.02 * unit_direction(PLACES, [0, 1, 2])
    found = other.evaluate(Geometry(moved), None)
    assert found.results["casscf_guess"] == "last geometry"
    assert np.diag(found.states.state_overlaps) == pytest.approx([1.0, 1.0], abs=1e-2)
    assert np.sum(other.memory()["vectors"][0] * memory["vectors"][0]) > 0.5


def test_the_active_space_is_the_one_that_was_chosen():
    def excitation(active):
        energies = evaluator(CASSCF(2, 2, 2, active=active)).evaluate(Geometry(PLACES), None).states.state_energies
        return energies[1] - energies[0]

    # From the pi orbitals of both atoms the bright state, from the frontier orbitals that of the lone pair.
    assert excitation(("C 2pz", "N 2pz")) > 0.3 > excitation("frontier")
    same = [
        evaluator(CASSCF(2, 4, 3, active=a)).evaluate(Geometry(PLACES), None).energy
        for a in ("frontier", "natural", (6, 7, 8))
    ]
    assert np.ptp(same) < 1e-6


def test_triplets_and_doublets_have_their_own_states():
    triplet = evaluator(CASSCF(2, 4, 3), state=0, multiplicity=3).evaluate(Geometry(PLACES), None)
    cation = evaluator(CASSCF(2, 3, 3), state=0, charge=1, multiplicity=2).evaluate(Geometry(PLACES), None)
    assert abs(triplet.gradient.sum(axis=0)).max() < BALANCED
    assert triplet.energy < cation.energy


def test_the_number_of_states_is_that_of_the_formula():
    # Paldus: six electrons in six orbitals have 175 singlets, 189 triplets, 35 quintets and one septet.
    assert [spin_states(6, 6, m) for m in (1, 3, 5, 7, 9)] == [175, 189, 35, 1, 0]
    assert [spin_states(3, 3, m) for m in (1, 2, 4)] == [0, 8, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 2, 2), "n_states counts all states"),
        ((2, 5, 2), "do not fit"),
        ((2, 2, 0), "n_orbitals is a whole number of 1 or more"),
        ((2, 2, 2, "homo"), "active is one of"),
        ((2, 2, 2, (1, 2, 3)), "names 2 different"),
        ((2, 2, 2, (1, "C 2p")), "numbers or of labels"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(PotentialError, match=message):
        CASSCF(*arguments)


def test_what_does_not_go_with_casscf_is_refused():
    for settings, message in (
        ({"method": "b3lyp"}, "no functional"),
        ({"density_fit": True}, "wrong by 1e-3"),
        ({"unrestricted": True}, "one set of orbitals"),
        ({"state": 2}, "does not exist"),
    ):
        with pytest.raises(PotentialError, match=message):
            PySCFPotential(**({"method": "hf", "basis": "sto-3g", "excited": SPACE} | settings))
    with pytest.raises(PotentialError, match="n_electrons is even"):
        evaluator(CASSCF(2, 3, 3))
    with pytest.raises(PotentialError, match="has 3 states of multiplicity 1"):
        evaluator(CASSCF(4, 2, 2))
    with pytest.raises(EvaluationError, match="2 electrons in 2 orbitals"):
        evaluator(CASSCF(2, 4, 3, active=("C 2pz", "N 2pz"))).evaluate(Geometry(PLACES), None)
    with pytest.raises(EvaluationError, match="labelled X 2p"):
        evaluator(CASSCF(2, 4, 3, active=("X 2p",))).evaluate(Geometry(PLACES), None)
    with pytest.raises(PotentialError, match="has 0 states of multiplicity 5"):
        evaluator(CASSCF(2, 2, 2), multiplicity=5)
    with pytest.raises(RegionError, match="16 electrons .charge 0. cannot have multiplicity 2; possible are 1, 3"):
        evaluator(CASSCF(2, 2, 2), multiplicity=2)
    with pytest.raises(EvaluationError, match=r"9 active orbitals do not fit: of the 13 orbitals .* 6 are .* leaves 7"):
        evaluator(CASSCF(2, 4, 9)).evaluate(Geometry(PLACES), None)
    with pytest.raises(EvaluationError, match="99 do not exist"):
        evaluator(CASSCF(2, 2, 2, active=(7, 99))).evaluate(Geometry(PLACES), None)


def test_a_root_that_flips_to_another_spin_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(casscf_states, "full_ci", lambda *a: full_ci(*a[:3], 3, *a[4:]))
    settings = potential(SPACE, failure_directory=tmp_path)
    computed = settings.create_evaluator(RegionSpecification("imine", NUMBERS, 0, 1))
    with pytest.raises(EvaluationError, match=r"(?s)root \d of CASSCF has flipped to another spin.*failed_001.*Lower"):
        computed.evaluate(Geometry(PLACES), None)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("casscf_states.LEAST_ACTIVE_SPACE", "active orbital has become another one"),
        ("state_tracking.LEAST_CHARACTER", "has lost its character"),
    ],
)
def test_states_that_cannot_be_followed_are_an_error(monkeypatch, tmp_path, limit, message):
    settings = potential(SPACE, follow_state=True, failure_directory=tmp_path)
    computed = settings.create_evaluator(RegionSpecification("imine", NUMBERS, 0, 1))
    computed.evaluate(Geometry(PLACES), None)
    monkeypatch.setattr(f"qmmlmm.qm.states.{limit}", 1.1)  # nothing overlaps by more than one
    with pytest.raises(EvaluationError, match=f"(?s){message}.*failed_001.*shorter steps"):
        computed.evaluate(Geometry(PLACES + 0.02 * unit_direction(PLACES, [0, 1, 2])), None)


def test_orbitals_that_do_not_converge_are_an_error(tmp_path):
    settings = CASSCF(2, 4, 3, max_cycle=1)
    potential_ = potential(settings, failure_directory=tmp_path)
    computed = potential_.create_evaluator(RegionSpecification("imine", NUMBERS, 0, 1))
    with pytest.raises(ConvergenceError, match="SA-CASSCF did not converge"):
        computed.evaluate(Geometry(PLACES), None)
    assert list(tmp_path.iterdir())
