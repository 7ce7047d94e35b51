"""Landau-Zener spin flips: the formula against exact propagation, and a molecule of two spins that costs nothing."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import Capabilities, EvaluatedPotential, Evaluation, Evaluator
from qmmlmm.errors import HamiltonianError
from qmmlmm.nonadiabatic import (
    CoefficientSurfaces,
    FewestSwitches,
    LandauZener,
    SurfaceHopping,
    SurfacePoint,
)
from qmmlmm.nonadiabatic.gap_minimum import hopping_probabilities
from qmmlmm.nonadiabatic.spin_crossing import flip_probabilities, spin_orbit_matrix
from qmmlmm.units import (
    ATOMIC_TIME_IN_PS,
    BOHR_IN_NM,
    ELECTRON_MASS_IN_DALTON,
    HARTREE_IN_EV,
    HARTREE_IN_KJ_PER_MOL,
    HARTREE_IN_PER_CM,
)
from tests.nonadiabatic.vibronic import CROSSING, LENGTH, MASSES, SLOPE, STIFFNESS, molecule, simulation_of

SPINS = np.array([1, 3])
KEPT = 1e-4
"""eV: what the total energy may change by at a hop."""
TWO_LEVELS = 1e-3
"""Share of the population: what is left of the transition at a gap of 60 couplings."""


def two_level_share(coupling, speed, gap, steps=8000):
    """Return the share that has gone over from one spin to the other while the gap ran from -gap to +gap; atomic units.

    Both ends are taken in eigenstates: a spin state that the coupling is left on for has a little of the other.
    """
    duration = 2.0 * gap / speed
    step = duration / steps

    def matrix(half):
        return np.array([[-half, coupling], [coupling, half]])

    c = np.linalg.eigh(matrix(-0.5 * gap))[1][:, 1].astype(complex)
    assert abs(c[0]) > 0.99
    for k in range(steps):
        half = 0.5 * (-gap + speed * (k + 0.5) * step)
        root = np.hypot(half, coupling)
        c = np.cos(root * step) * c - 1j * np.sin(root * step) / root * (matrix(half) @ c)
    return abs(np.linalg.eigh(matrix(0.5 * gap))[1][:, 1] @ c) ** 2


@pytest.mark.parametrize("exponent", [0.05, 0.7, 2.5])
def test_the_probability_is_that_of_the_exactly_propagated_two_levels(exponent):
    speed = 1e-5  # hartree per atomic unit of time
    coupling = np.sqrt(exponent * speed / (2.0 * np.pi))
    step = 20.0
    points = [
        SurfacePoint(
            np.array([0.0, gap]) * HARTREE_IN_KJ_PER_MOL,
            multiplicities=SPINS,
            spin_orbit=coupling * HARTREE_IN_KJ_PER_MOL * (1.0 - np.eye(2)),
        )
        for gap in (-0.3 * speed * step, 0.7 * speed * step)
    ]
    found = flip_probabilities(*points, 0, step * ATOMIC_TIME_IN_PS)
    assert found == pytest.approx([0.0, 1.0 - np.exp(-exponent)], rel=1e-6)
    exact = two_level_share(coupling, speed, gap=60.0 * coupling)
    assert found[1] == pytest.approx(exact, abs=TWO_LEVELS)
    # The other way round it is the same, and without a crossing nothing happens.
    assert flip_probabilities(*points, 1, step * ATOMIC_TIME_IN_PS)[0] == pytest.approx(found[1], rel=1e-12)
    assert (flip_probabilities(points[0], points[0], 0, step) == 0.0).all()


def test_a_crossing_on_a_step_counts_once_and_states_of_one_spin_do_not_cross():
    coupled = spin_orbit_matrix(5.0, np.array([1, 3, 1, 5]))

    def point(*energies):
        return SurfacePoint(np.array(energies), multiplicities=np.array([1, 3, 1, 5]), spin_orbit=coupled)

    course = [point(0.0, e, e, e) for e in (-2.0, -1.0, 0.0, 1.0)]
    found = [flip_probabilities(old, new, 0, 1e-4) for old, new in itertools.pairwise(course)]
    assert (found[0] == 0.0).all()
    assert found[1][1] > 0.0
    assert (found[2] == 0.0).all()
    # Another singlet; and S changes by one at most.
    assert (found[1][[0, 2, 3]] == 0.0).all()


def test_gaps_to_another_spin_have_no_minimum_to_hop_at():
    gaps = [np.array([0.0, 3.0, 3.0]), np.array([0.0, 0.1, 0.1]), np.array([0.0, 3.0, 3.0])]
    found = hopping_probabilities(gaps, 0, 1e-4, np.array([1, 3, 1]))
    assert found[1] == 0.0
    assert found[2] > 0.9


COUPLING = 0.009  # hartree, as between heavy atoms: half of the trajectories flip
# Bohr, bohr, hartree: of the packet. It begins where both spins have stopped to mix: a transition lasts for the root of
# hbar over the rate, 0.9 fs, in which the molecule gets 0.2 bohr further. From 2.65 bohr the share is 5 % lower.
START, WIDTH, KINETIC = 2.95, 0.12, 0.02
SHORT, FEW = 0.0001, 15  # ps; velocity Verlet alone errs by 2e-5 eV in such a step
STEP, STEPS = 0.0004, 20  # ps; the packet is through and has not come back
REDUCED = MASSES[0] * MASSES[1] / sum(MASSES) / ELECTRON_MASS_IN_DALTON


def spring(r, sign):
    """Energy of the molecule in one spin state, hartree; the two cross where the gap is zero."""
    return 0.5 * STIFFNESS * (r - LENGTH) ** 2 + sign * SLOPE * (r - CROSSING)


@dataclass(frozen=True)
class SpinPotential(EvaluatedPotential):
    """A spring with a constant force: outward for the one multiplicity, inward for the other."""

    level = "QM"
    capabilities = Capabilities(frozenset({"mechanical"}))

    def create_evaluator(self, specification):
        return SpinEvaluator(1 if specification.multiplicity == 3 else -1)


class SpinEvaluator(Evaluator):
    def __init__(self, sign):
        self._sign = sign

    def evaluate(self, geometry, field):
        vector = geometry.positions[1] - geometry.positions[0]
        r = np.linalg.norm(vector)
        slope = STIFFNESS * (r - LENGTH) + self._sign * SLOPE
        gradient = np.outer([-1.0, 1.0], slope * vector / r)
        return Evaluation(energy=float(spring(r, self._sign)), gradient=gradient, results={"length": r})


def two_spins(**changes):
    topology, system = molecule()
    region = Region("co", (0, 1), charge=0, multiplicity=1)
    terms = [
        Term(SpinPotential(), region, embedding="mechanical", coefficient="1-t", name="co/S"),
        Term(SpinPotential(), region, embedding="mechanical", coefficient="t", name="co/T", **changes),
    ]
    return create_mixed_system(topology, system, Hamiltonian(terms, parameters={"t": 1.0}))


def hopping_molecule(spin_orbit, step=STEP):
    mixed = two_spins(multiplicity=3)
    surfaces = CoefficientSurfaces(mixed, ["t"], spin_orbit=spin_orbit)
    return SurfaceHopping(simulation_of(mixed, step), surfaces, 1, method=LandauZener())


def launch(hopping, r, speed, seed):
    """Begin on the triplet at a distance, bohr, with its rate of change in atomic units."""
    hopping.reset(1, seed)
    context = hopping.simulation.context
    context.setPositions(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, r * BOHR_IN_NM]]))
    along = speed * BOHR_IN_NM / ATOMIC_TIME_IN_PS
    shares = np.array([-MASSES[1], MASSES[0]]) / sum(MASSES)
    context.setVelocities(np.outer(shares * along, [0.0, 0.0, 1.0]))


def total_energy(hopping):
    state = hopping.simulation.context.getState(energy=True)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value


def test_the_total_energy_is_kept_at_a_spin_flip():
    hopping = hopping_molecule(COUPLING * HARTREE_IN_KJ_PER_MOL, SHORT)
    for seed in range(20):
        launch(hopping, CROSSING + 0.05, -np.sqrt(2.0 * KINETIC / REDUCED), seed)
        energies, states = [], []
        for _ in range(FEW):
            hopping.step(1)
            energies.append(total_energy(hopping))
            states.append(hopping.state)
        if any(hop.accepted for hop in hopping.hops):
            break
    (hop,) = hopping.hops
    assert hop.accepted
    flip = states.index(0)
    assert states == [1] * flip + [0] * (FEW - flip)
    jumps = abs(np.diff(energies)) / HARTREE_IN_KJ_PER_MOL * HARTREE_IN_EV
    assert jumps[flip - 1] < KEPT
    assert abs(hop.energy_change) / HARTREE_IN_KJ_PER_MOL * HARTREE_IN_EV > 10 * KEPT  # there was something to keep


def exact_share(coupling):
    """Return the share of the singlet after a Gaussian packet has gone through the crossing, by the split operator."""
    n = 1024
    r = np.linspace(0.9, 3.9, n, endpoint=False)
    momenta = 2.0 * np.pi * np.fft.fftfreq(n, r[1] - r[0])
    step = STEP / ATOMIC_TIME_IN_PS / 16.0
    kinetic = np.exp(-0.5j * momenta**2 / REDUCED * step)
    base, half = 0.5 * STIFFNESS * (r - LENGTH) ** 2, SLOPE * (r - CROSSING)
    root = np.hypot(half, coupling)
    turn, spread = np.cos(0.5 * root * step), -1j * np.sin(0.5 * root * step) / root
    phase = np.exp(-0.5j * base * step)
    momentum = -np.sqrt(2.0 * KINETIC * REDUCED)
    # Eigenstates of the spins and their coupling: the triplet is the upper one outside, the singlet inside.
    upper = np.array([root - half, np.full(n, coupling)])
    upper[:, half > 0.0] = np.array([np.full(n, coupling), root + half])[:, half > 0.0]
    upper /= np.linalg.norm(upper, axis=0)
    psi = upper * np.exp(1j * momentum * r - (r - START) ** 2 / WIDTH**2)
    psi /= np.sqrt((abs(psi) ** 2).sum())

    def potential(psi):
        return phase * np.array(
            [
                (turn - spread * half) * psi[0] + spread * coupling * psi[1],
                spread * coupling * psi[0] + (turn + spread * half) * psi[1],
            ]
        )

    for _ in range(16 * STEPS):
        psi = potential(np.fft.ifft(kinetic * np.fft.fft(potential(psi))))
    assert (abs(psi) ** 2).sum() == pytest.approx(1.0, abs=1e-9)
    # All of it is through, and has not come back.
    assert (abs(psi[:, r > CROSSING]) ** 2).sum() < 1e-3
    return float((abs((upper * psi).sum(axis=0)) ** 2).sum())


@pytest.mark.parametrize("coupling", [0.5 * COUPLING, COUPLING])
def test_as_many_trajectories_flip_as_the_exact_packet(coupling):
    count = 200
    random = np.random.default_rng(11)
    hopping = hopping_molecule(coupling * HARTREE_IN_PER_CM / unit.centimeter)
    momentum = -np.sqrt(2.0 * KINETIC * REDUCED)
    flipped = 0
    for _ in range(count):
        # The Wigner distribution of the packet.
        r, speed = random.normal(START, 0.5 * WIDTH), random.normal(momentum, 1.0 / WIDTH) / REDUCED
        launch(hopping, r, speed, int(random.integers(2**32)))
        hopping.step(STEPS)
        flipped += hopping.state == 0
    exact = exact_share(coupling)
    assert 0.1 < exact < 0.9
    assert abs(flipped / count - exact) < 2.0 * np.sqrt(exact * (1.0 - exact) / count)


def test_a_callable_knows_the_results_of_both_spins_and_units_are_read():
    seen = []

    def coupling(results):
        seen.append(results)
        return 2.0 * results["co/T"]["length"]  # a bare number is in kJ/mol

    mixed = two_spins(multiplicity=3)
    simulation = simulation_of(mixed)
    simulation.context.setPositions(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.13]]))
    point = CoefficientSurfaces(mixed, ["t"], spin_orbit=coupling).observe(simulation.context)
    r = 0.13 / BOHR_IN_NM
    assert point.spin_orbit == pytest.approx(2.0 * r * (1.0 - np.eye(2)))
    assert point.multiplicities.tolist() == [1, 3]
    assert seen[0]["co/S"]["length"] == pytest.approx(r)
    assert point.energies[1] == pytest.approx((spring(r, 1) - spring(r, -1)) * HARTREE_IN_KJ_PER_MOL)
    found = spin_orbit_matrix(100.0 / unit.centimeter, SPINS)[0, 1]
    assert found / HARTREE_IN_KJ_PER_MOL * HARTREE_IN_PER_CM == pytest.approx(100.0)
    energy = 2.0 * unit.kilocalorie_per_mole
    assert spin_orbit_matrix(energy, SPINS)[0, 1] == pytest.approx(8.368)


def test_the_term_has_its_own_multiplicity_in_the_same_surroundings():
    mixed = two_spins(multiplicity=3)
    assert [term.layout.specification.multiplicity for term in mixed.terms.values()] == [1, 3]
    assert [term["multiplicity"] for term in mixed.describe()["terms"]] == [1, 3]
    for wrong in (0, 1.5, True):
        with pytest.raises(HamiltonianError, match="2S \\+ 1"):
            Term(SpinPotential(), Region("co", (0, 1)), embedding="mechanical", multiplicity=wrong)


def test_what_does_not_go_together_is_refused():
    same, several = two_spins(), two_spins(multiplicity=3)
    with pytest.raises(HamiltonianError, match="say how they are coupled"):
        CoefficientSurfaces(several, ["t"])
    with pytest.raises(HamiltonianError, match="leave spin_orbit out"):
        CoefficientSurfaces(same, ["t"], spin_orbit=1.0)
    for wrong in (-1.0, [1.0, 2.0], [[0.0, 1.0], [2.0, 0.0]]):
        with pytest.raises(HamiltonianError, match="symmetric matrix"):
            CoefficientSurfaces(several, ["t"], spin_orbit=wrong)
    for wrong in ("strong", True, np.nan, 1.0 * unit.kelvin):
        with pytest.raises(HamiltonianError, match="40 / unit.centimeter"):
            CoefficientSurfaces(several, ["t"], spin_orbit=wrong)
    simulation = simulation_of(several)
    simulation.context.setPositions(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.13]]))
    surfaces = CoefficientSurfaces(several, ["t"], spin_orbit=1.0)
    with pytest.raises(ValueError, match=r"\[1, 3\] hop by LandauZener"):
        SurfaceHopping(simulation, surfaces, 1, method=FewestSwitches()).step(1)


def test_a_run_from_a_checkpoint_takes_the_same_steps(tmp_path):
    whole, resumed = (hopping_molecule(COUPLING * HARTREE_IN_KJ_PER_MOL) for _ in range(2))
    flips = []
    for seed in range(8):
        launch(whole, START, -np.sqrt(2.0 * KINETIC / REDUCED), seed)
        whole.step(5)
        whole.save_checkpoint(tmp_path / "co.chk")
        launch(resumed, CROSSING, 0.0, 99)
        resumed.load_checkpoint(tmp_path / "co.chk")
        for hopping in (whole, resumed):
            hopping.step(STEPS - 5)
        assert total_energy(resumed) == total_energy(whole)
        assert resumed.hops == whole.hops
        flips.append(len(whole.hops))
    assert set(flips) == {0, 1}
