"""Multiple time stepping against exact maps, against OpenMM's own integrators, and in evaluations of each term."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
import scipy.integrate
import scipy.linalg
from openmm import app, unit

from qmmlmm import Hamiltonian, OpenMMPotential, Region, Term, create_mixed_system
from qmmlmm.errors import HamiltonianError, SettingError
from qmmlmm.sampling.multiple_time_step import MultipleTimeStepIntegrator
from qmmlmm.sampling.slow_terms import correction_terms
from systems import solution
from tests.contexts import make_context
from tests.sampling.named_forces import mixed_of_forces
from tests.toy_potentials import SettingsOnly

BOLTZMANN = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
STIFF, SOFT, MASS = 4000.0, 600.0, 2.0  # kJ/(mol nm^2), Da


def springs(n_particles=1, constrained=False):
    """Particles on a stiff and a soft spring, in groups 0 and 1, in the place of a MixedSystem."""
    system = openmm.System()
    for group, (name, constant, place) in enumerate([("fast", STIFF, 0.0), ("slow", SOFT, 0.1)]):
        force = openmm.CustomExternalForce(f"0.5*{constant}*((x-{place})^2+y^2+z^2)+30*x^4*{group}")
        force.setName(name)
        force.setForceGroup(group)
        for k in range(n_particles):
            if not group:
                system.addParticle(MASS)
            force.addParticle(k)
        system.addForce(force)
    if constrained:
        for k in range(0, n_particles, 2):
            system.addConstraint(k, k + 1, 0.1)
    return mixed_of_forces(system, ["fast", "slow"])


def state_of(context):
    state = context.getState(positions=True, velocities=True)
    return state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value


def test_positions_are_those_of_velocity_respa():
    """The textbook form, half impulses at both ends, gives the same positions and, half an impulse on, velocities."""
    step, n = 0.008, 5
    rng = np.random.default_rng(1)
    x, v = 0.05 * rng.normal(size=(4, 3)), rng.normal(size=(4, 3))

    def fast(x):
        return -STIFF * x

    def slow(x):
        return -SOFT * (x - [0.1, 0, 0]) - 120.0 * x**3 * [1, 0, 0]

    mixed = springs(4)
    integrator = MultipleTimeStepIntegrator(mixed, None, 0.0, step, n, slow=["slow"])
    half_behind = v - 0.5 * (step * slow(x) + step / n * fast(x)) / MASS
    context = make_context(mixed.system, x, integrator=integrator, velocities=half_behind)
    for _ in range(7):
        v = v + 0.5 * step * slow(x) / MASS
        for _ in range(n):
            v = v + 0.5 * step / n * fast(x) / MASS
            x = x + step / n * v
            v = v + 0.5 * step / n * fast(x) / MASS
        v = v + 0.5 * step * slow(x) / MASS
        integrator.step(1)
        found, velocities = state_of(context)
        np.testing.assert_allclose(found, x, rtol=0, atol=1e-12)
        ahead = velocities + 0.5 * (step * slow(found) + step / n * fast(found)) / MASS
        np.testing.assert_allclose(ahead, v, rtol=0, atol=1e-10)
        assert integrator.kinetic_energy(context)._value == pytest.approx(0.5 * MASS * (v * v).sum(), rel=1e-10)
        np.testing.assert_array_equal(state_of(context)[1], velocities)


@pytest.mark.parametrize("constrained", [False, True])
def test_one_inner_step_is_openmms_own_leapfrog(constrained):
    mixed = springs(6, constrained)
    ours = MultipleTimeStepIntegrator(mixed, None, 0.0, 0.002, 1, slow=["slow"])
    theirs = openmm.VerletIntegrator(0.002)
    rng = np.random.default_rng(2)
    x = 0.02 * rng.normal(size=(6, 3))
    x[1::2] = x[::2] + np.array([0.1, 0, 0])
    results = []
    for integrator in (ours, theirs):
        integrator.setConstraintTolerance(1e-10)
        context = make_context(mixed.system, x, integrator=integrator, velocities=np.zeros((6, 3)))
        integrator.step(50)
        results.append(state_of(context)[0])
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("step", "n"), [(0.01, 1), (0.02, 4), (0.04, 8)])
def test_sampled_variances_are_those_of_the_exact_linear_map(step, n):
    """Positions of a harmonic oscillator: the stationary covariance of the step as a linear map with noise."""
    temperature, friction, particles = 300.0, 5.0, 1500
    inner = step / n
    kick_slow = np.array([[1, 0], [-step * SOFT / MASS, 1]])
    kick_fast = np.array([[1, 0], [-inner * STIFF / MASS, 1]])
    drift = np.array([[1, 0.5 * inner], [0, 1]])
    keep = np.exp(-friction * inner)
    rub = np.diag([1.0, keep])
    noise = np.diag([0.0, (1 - keep**2) * BOLTZMANN * temperature / MASS])
    map_, covariance = np.eye(2), np.zeros((2, 2))
    for matrix, added in [(kick_slow, 0), *([(kick_fast, 0), (drift, 0), (rub, noise), (drift, 0)] * n)]:
        map_, covariance = matrix @ map_, matrix @ covariance @ matrix.T + added
    exact = scipy.linalg.solve_discrete_lyapunov(map_, covariance)[0, 0]

    mixed = springs(particles)
    mixed.system.removeForce(1)
    soft = openmm.CustomExternalForce(f"0.5*{SOFT}*(x^2+y^2+z^2)")
    soft.setName("slow")
    soft.setForceGroup(1)
    for k in range(particles):
        soft.addParticle(k)
    mixed.system.addForce(soft)
    integrator = MultipleTimeStepIntegrator(mixed, temperature, friction, step, n, slow=["slow"])
    integrator.setRandomNumberSeed(11)
    context = make_context(mixed.system, np.zeros((particles, 3)), integrator=integrator)
    integrator.step(round(1.0 / step))
    squares = []
    for _ in range(40):
        integrator.step(round(0.2 / step))
        squares.append((state_of(context)[0] ** 2).mean())
    # 180,000 values, 0.2 ps apart at a friction of 5/ps: 60,000 that are independent, a standard error of 0.6 %.
    assert np.mean(squares) == pytest.approx(exact, rel=0.02)
    assert exact == pytest.approx(BOLTZMANN * temperature / (STIFF + SOFT), rel=1e-9 if n == 1 else 0.4)


@pytest.mark.parametrize("half_turn", [0.64, 1.13])  # C=O at 1,700/cm and C-H at 3,000/cm with a step of 4 fs
def test_at_outer_steps_a_constant_slow_force_shows_a_part_of_its_shift(half_turn):
    """The orbit that repeats in each outer step: free motion of a spring between two impulses, the same at both."""
    force, n = 40.0, 200
    step = 2.0 * half_turn / np.sqrt(STIFF / MASS)
    shown = half_turn / np.tan(half_turn) * force / STIFF
    mixed = springs()
    mixed.system.removeForce(1)
    pull = openmm.CustomExternalForce(f"-{force}*x")
    pull.setName("slow")
    pull.setForceGroup(1)
    pull.addParticle(0)
    mixed.system.addForce(pull)
    integrator = MultipleTimeStepIntegrator(mixed, None, 0.0, step, n, slow=["slow"])
    # Half of the impulse of the slow force before it acts, and of the first one of the spring.
    speed = -0.5 * (step * force - step / n * STIFF * shown) / MASS
    context = make_context(mixed.system, [[shown, 0, 0]], integrator=integrator, velocities=[[speed, 0, 0]])
    for _ in range(20):
        integrator.step(1)
        # The inner steps turn the phase by (2 half_turn / n)^2 / 24 too much.
        assert state_of(context)[0][0, 0] == pytest.approx(shown, rel=1e-4)
    assert shown < 0.87 * force / STIFF


def test_friction_and_temperature_are_variables_that_a_script_can_change():
    mixed = springs(500)
    integrator = MultipleTimeStepIntegrator(
        mixed, 300 * unit.kelvin, 50 / unit.picosecond, 4 * unit.femtosecond, 2, slow=["slow"]
    )
    integrator.setRandomNumberSeed(3)
    context = make_context(mixed.system, np.zeros((500, 3)), integrator=integrator)
    integrator.step(300)
    integrator.setGlobalVariableByName("kT", 2 * integrator.getGlobalVariableByName("kT"))
    integrator.step(300)
    kinetic = np.mean([_step_and_kinetic(integrator, context) for _ in range(50)])
    assert kinetic == pytest.approx(1.5 * 500 * BOLTZMANN * 600, rel=0.03)


def _step_and_kinetic(integrator, context):
    integrator.step(10)
    return integrator.kinetic_energy(context)._value


def kicked(v, force, length, bound):
    """The velocity of an isokinetic coordinate after a constant force: rapidities add up."""
    return bound * np.tanh(np.arctanh(v / bound) + length * force / (MASS * bound))


def test_an_isokinetic_step_is_the_flow_of_its_equations_of_motion():
    """Without friction; every other particle is left to Newton."""
    step, n, temperature = 0.008, 5, 300.0
    bound = np.sqrt(BOLTZMANN * temperature / MASS)
    rng = np.random.default_rng(1)
    x, v = 0.05 * rng.normal(size=(4, 3)), 0.8 * bound * rng.uniform(-1, 1, size=(4, 3))
    mixed = springs(4)
    integrator = MultipleTimeStepIntegrator(mixed, temperature, 0.0, step, n, slow=["slow"], isokinetic=[0, 2])
    assert integrator.isokinetic == (0, 2)
    context = make_context(mixed.system, x, integrator=integrator, velocities=v)
    for _ in range(7):
        impulse = -SOFT * (x - [0.1, 0, 0]) - 120.0 * x**3 * [1, 0, 0]
        v[::2] = kicked(v[::2], impulse[::2], step, bound)
        v[1::2] += step * impulse[1::2] / MASS
        for _ in range(n):
            force = -STIFF * x
            v[::2] = kicked(v[::2], force[::2], step / n, bound)
            v[1::2] += step / n * force[1::2] / MASS
            x = x + step / n * v
        integrator.step(1)
        found, velocities = state_of(context)
        np.testing.assert_allclose(found, x, rtol=0, atol=1e-12)
        np.testing.assert_allclose(velocities, v, rtol=0, atol=1e-10)
    with pytest.raises(SettingError, match="2 particles are isokinetic"):
        integrator.kinetic_energy(context)


def test_the_flow_of_an_isokinetic_kick_solves_its_differential_equation():
    """dv/dt = F/m (1 - v^2/c^2), as the gradient of the constraint m v^2 + w^2 = kT asks, by Runge and Kutta."""
    bound, force, length = 1.3, -70.0, 0.02
    solution = scipy.integrate.solve_ivp(
        lambda _, v: force / MASS * (1 - (v / bound) ** 2), (0, length), [0.9], rtol=1e-10, atol=1e-12
    )
    assert kicked(0.9, force, length, bound) == pytest.approx(solution.y[0, -1], rel=1e-8)


def test_isokinetic_positions_are_canonical_and_velocities_lie_on_their_circles():
    """An anharmonic well against quadrature, with small steps."""
    temperature, particles = 300.0, 1000
    kt = BOLTZMANN * temperature
    grid = np.linspace(-0.4, 0.4, 4001)
    weights = np.exp(-(0.5 * STIFF * grid**2 + 0.5 * SOFT * (grid - 0.1) ** 2 + 1e6 * grid**4) / kt)
    weights /= weights.sum()
    mixed = springs(particles)
    steeper = openmm.CustomExternalForce("999970*x^4")
    for k in range(particles):
        steeper.addParticle(k)
    mixed.system.addForce(steeper)
    integrator = MultipleTimeStepIntegrator(mixed, temperature, 20.0, 0.004, 2, slow=["slow"], isokinetic=True)
    integrator.setRandomNumberSeed(5)
    context = make_context(mixed.system, np.zeros((particles, 3)), integrator=integrator)
    integrator.step(250)
    seen, speeds = [], []
    for _ in range(60):
        integrator.step(25)
        x, v = state_of(context)
        seen.append([x[:, 0].mean(), (x[:, 0] ** 2).mean(), (x[:, 0] ** 4).mean()])
        speeds.append(v * np.sqrt(MASS / kt))
    # 60 frames 0.1 ps apart at a friction of 20/ps: a few thousand frames' worth of independent particles.
    exact = [(weights * grid**power).sum() for power in (1, 2, 4)]
    error = np.std(seen, axis=0, ddof=1) / np.sqrt(len(seen) / 3)
    assert np.all(np.abs(np.mean(seen, axis=0) - exact) < 4 * error + 0.002 * np.abs(exact))
    assert np.all(error < 0.02 * np.abs(exact))
    y = np.array(speeds)
    assert np.abs(y).max() <= 1.0
    assert (y**2).mean() == pytest.approx(1 / 2, rel=0.01)
    assert (y**4).mean() == pytest.approx(3 / 8, rel=0.01)


FAST_PERIOD = 0.01  # ps, of a stretch with a bond to hydrogen
SHARE = 0.02  # of its force constant is slow


def respa_map(step, n, friction):
    """The outer step of Langevin dynamics for the stretch as a matrix."""
    stiff = MASS * (2 * np.pi / FAST_PERIOD) ** 2
    inner = step / n
    drift = np.array([[1, 0.5 * inner], [0, 1]])
    whole = np.array([[1, 0], [-step * SHARE * stiff / MASS, 1]])
    for _ in range(n):
        kick = np.array([[1, 0], [-inner * stiff / MASS, 1]])
        whole = drift @ np.diag([1, np.exp(-friction * inner)]) @ drift @ kick @ whole
    return whole


@pytest.mark.parametrize(("step", "n"), [(0.00495, 10), (0.0099, 20), (0.0196, 39)])
def test_isokinetic_particles_stay_where_they_belong_beyond_the_resonance(step, n):
    """At these steps the plain scheme gains energy without bound, in spite of friction."""
    temperature, friction, particles = 300.0, 10.0, 400
    stiff = MASS * (2 * np.pi / FAST_PERIOD) ** 2
    assert np.abs(np.linalg.eigvals(respa_map(step, n, friction))).max() > 1
    system = openmm.System()
    for group, (name, constant) in enumerate([("fast", stiff), ("slow", SHARE * stiff)]):
        force = openmm.CustomExternalForce(f"0.5*{constant}*(x^2+y^2+z^2)")
        force.setName(name)
        force.setForceGroup(group)
        for k in range(particles):
            if not group:
                system.addParticle(MASS)
            force.addParticle(k)
        system.addForce(force)
    mixed = mixed_of_forces(system, ["fast", "slow"])
    exact = BOLTZMANN * temperature / (stiff * (1 + SHARE))
    integrator = MultipleTimeStepIntegrator(mixed, temperature, friction, step, n, slow=["slow"], isokinetic=True)
    integrator.setRandomNumberSeed(3)
    places = np.sqrt(exact) * np.random.default_rng(1).normal(size=(particles, 3))
    context = make_context(system, places, integrator=integrator)
    integrator.step(round(0.4 / step))
    squares = []
    for _ in range(30):
        integrator.step(max(1, round(0.02 / step)))
        squares.append((state_of(context)[0] ** 2).mean())
    # Standard error about 1 %; what the impulse itself does is 5 % here.
    assert np.mean(squares) == pytest.approx(exact, rel=0.08)


def test_isokinetic_particles_among_constraints_virtual_sites_and_momentum_removal():
    """A dimer of fixed length in a field, a particle on a spring at its end, and a virtual site that carries the load.

    Exact: <cos> of a dipole in a field is Langevin's function, and the spring's length has its own Boltzmann factor.
    """
    temperature, dimers, field, spring = 300.0, 150, 60.0, 3000.0
    kt, length = BOLTZMANN * temperature, 0.1
    system, load, springs_ = openmm.System(), openmm.CustomExternalForce(f"-{field}*z"), openmm.HarmonicBondForce()
    hold = openmm.CustomExternalForce("0.5*2000*(x^2+y^2+z^2)")
    for k in range(dimers):
        first = 4 * k
        for mass in (12.0, 4.0, 0.0, 1.0):
            system.addParticle(mass)
        system.addConstraint(first, first + 1, length)
        # In the middle of the dimer: it hands half of its force to each end.
        system.setVirtualSite(first + 2, openmm.TwoParticleAverageSite(first, first + 1, 0.0, 1.0))
        load.addParticle(first + 2)
        hold.addParticle(first)
        springs_.addBond(first + 1, first + 3, 0.0, spring)
    load.setName("fast")
    springs_.setName("slow")
    springs_.setForceGroup(1)
    for force in (load, hold, springs_, openmm.CMMotionRemover(1)):
        system.addForce(force)
    mixed = mixed_of_forces(system, ["fast", "slow"])
    integrator = MultipleTimeStepIntegrator(mixed, temperature, 20.0, 0.004, 4, slow=["slow"], isokinetic=True)
    assert integrator.isokinetic == tuple(range(3, 4 * dimers, 4))
    integrator.setRandomNumberSeed(2)
    integrator.setConstraintTolerance(1e-8)
    start = np.zeros((4 * dimers, 3))
    start[1::4, 2] = start[2::4, 2] = start[3::4, 2] = length
    context = make_context(system, start, integrator=integrator)
    context.setVelocitiesToTemperature(temperature, 1)
    integrator.step(500)
    cosines, stretches = [], []
    for _ in range(80):
        integrator.step(25)
        x, v = state_of(context)
        dimer = x[1::4] - x[::4]
        np.testing.assert_allclose(np.linalg.norm(dimer, axis=1), length, rtol=1e-6)
        cosines.append((dimer[:, 2] / length).mean())
        stretches.append(((x[3::4] - x[1::4]) ** 2).mean())
        assert (np.abs(v[3::4]) <= np.sqrt(kt / 1.0)).all()
    load_ = field * length / kt
    for values, exact in ((cosines, 1 / np.tanh(load_) - 1 / load_), (stretches, kt / spring)):
        error = np.std(values, ddof=1) / np.sqrt(len(values) / 2)
        assert error < 0.03 * exact
        assert abs(np.mean(values) - exact) < 4 * error + 0.005 * exact


def test_isokinetic_is_refused_where_it_cannot_be_right():
    constrained = springs(4)
    constrained.system.addConstraint(0, 1, 0.1)
    constrained.system.setParticleMass(3, 0.0)

    def make(isokinetic, temperature=300.0):
        return MultipleTimeStepIntegrator(
            constrained, temperature, 1.0, 0.004, 2, slow=["slow"], isokinetic=isokinetic
        ).isokinetic

    assert make(True) == (2,)
    with pytest.raises(SettingError, match="isokinetic particles 0, 1 have constraints; leave them out"):
        make([0, 1, 2])
    with pytest.raises(SettingError, match="isokinetic particles 3 have no mass"):
        make([2, 3])
    with pytest.raises(SettingError, match="isokinetic has atom indices from 0 to 3, got 4"):
        make([4])
    with pytest.raises(SettingError, match="isokinetic has no atom"):
        make([])
    with pytest.raises(SettingError, match="isokinetic needs a temperature"):
        make(True, None)
    constrained.system.addConstraint(1, 2, 0.1)
    with pytest.raises(SettingError, match="all 3 particles with a mass have constraints"):
        make(True)


class Counted(OpenMMPotential):
    """A stand-in for QM that runs in Python and is counted there."""


def water_region(constant):
    """Bonds and an angle of one water."""
    system = openmm.System()
    for mass in (16.0, 1.0, 1.0):
        system.addParticle(mass)
    bonds, angle = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    bonds.addBond(0, 1, 0.096, constant)
    bonds.addBond(0, 2, 0.096, constant)
    angle.addAngle(1, 0, 2, 1.82, 600.0)
    system.addForce(bonds)
    system.addForce(angle)
    return system


@pytest.fixture(scope="module")
def corrected_water():
    solvent = solution.Solvent(n_water=60)
    placed = solution.place_solvent(np.empty((0, 3)), 1.26 * np.eye(3), solvent, np.random.default_rng(1))
    topology = solution.join_topologies(app.Topology(), solvent, placed.box_quantity)
    system = app.ForceField(solution.WATER_XML["tip3p"]).createSystem(
        topology, nonbondedMethod=app.PME, nonbondedCutoff=0.55 * unit.nanometer, rigidWater=True
    )
    return topology, system, placed.positions_quantity


def mixed_of(corrected_water, another=False):
    """Return a fast potential, a dear one, and the fast one, or `another` equal one, taken back."""
    topology, system, _ = corrected_water
    fast, dear = OpenMMPotential(water_region(2.5e5)), Counted(water_region(2.6e5))
    taken_back = OpenMMPotential(water_region(2.5e5)) if another else fast
    region = Region("water", range(3))
    return create_mixed_system(
        topology,
        system,
        Hamiltonian(
            [
                Term(fast, region, embedding="mechanical", name="fast"),
                Term(dear, region, embedding="mechanical", name="dear"),
                Term(taken_back, region, embedding="mechanical", coefficient=-1.0, name="taken back"),
            ]
        ),
    )


def evaluations(mixed, name):
    return mixed.terms[name].runner.evaluations


@pytest.mark.parametrize("isokinetic", [False, True])
@pytest.mark.parametrize("constants", [(1.0, -1.0), (0.5, -0.25)])
def test_what_is_taken_back_is_not_evaluated_and_moves_the_same(corrected_water, isokinetic, constants):
    """A slow multiple of a fast term against a slow term of its own with the same force."""
    topology, system, places = corrected_water
    trajectories = []
    for another in (False, True):
        fast, dear = OpenMMPotential(water_region(2.5e5)), Counted(water_region(2.6e5))
        region = Region("water", range(3))
        terms = [
            Term(fast, region, embedding="mechanical", coefficient=constants[0], name="fast"),
            Term(dear, region, embedding="mechanical", coefficient=1.0 - sum(constants), name="dear"),
            Term(
                OpenMMPotential(water_region(2.5e5)) if another else fast,
                region,
                embedding="mechanical",
                coefficient=constants[1],
                name="taken back",
            ),
        ]
        mixed = create_mixed_system(topology, system, Hamiltonian(terms))
        integrator = MultipleTimeStepIntegrator(
            mixed, 300.0, 0.0, 0.002, inner_steps=4, isokinetic=isokinetic, slow=["dear", "taken back"]
        )
        integrator.setRandomNumberSeed(3)
        context = make_context(mixed.system, places, integrator=integrator)
        context.setVelocitiesToTemperature(300.0, 1)
        integrator.step(10)
        assert evaluations(mixed, "taken back") == (10 if another else 0)
        assert evaluations(mixed, "fast") == 40
        assert evaluations(mixed, "dear") == 10
        trajectories.append(state_of(context))
    (x, v), (x2, v2) = trajectories
    np.testing.assert_allclose(x[:3], x2[:3], rtol=0, atol=1e-9)
    np.testing.assert_allclose(v[:3], v2[:3], rtol=0, atol=1e-6)


def test_a_term_that_has_changed_since_is_not_taken_for_its_opposite(corrected_water):
    mixed = mixed_of(corrected_water)
    integrator = MultipleTimeStepIntegrator(mixed, None, 0.0, 0.002, inner_steps=2)
    context = make_context(mixed.system, corrected_water[2], integrator=integrator, velocities=np.zeros((180, 3)))
    integrator.step(1)
    fast = mixed.terms["fast"]
    # As exchange_model does.
    mixed.replace_term(replace(fast, term=replace(fast.term, potential=OpenMMPotential(water_region(2.4e5)))))
    with pytest.raises(HamiltonianError, match="'taken back' was a multiple of 'fast' when this integrator"):
        integrator.step(1)
    assert context.getStepCount() == 1


@pytest.mark.parametrize("isokinetic", [False, True])
def test_one_evaluation_of_the_slow_terms_in_an_outer_step(corrected_water, tmp_path, isokinetic):
    """Reporters of the energy cost nothing, and the fast term costs one evaluation in each inner step."""
    mixed = mixed_of(corrected_water)
    integrator = MultipleTimeStepIntegrator(
        mixed, 300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond, inner_steps=4, isokinetic=isokinetic
    )
    assert integrator.isokinetic == ((0, 1, 2) if isokinetic else ())  # all other water is rigid
    simulation = app.Simulation(mixed.topology, mixed.system, integrator, openmm.Platform.getPlatform("Reference"))
    simulation.context.setPositions(corrected_water[2])
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.reporters.append(
        app.StateDataReporter(str(tmp_path / "log.csv"), 1, potentialEnergy=True, temperature=True, step=True)
    )
    simulation.step(10)
    # The last reporter asks for the energy where the next step would begin.
    assert evaluations(mixed, "dear") == 11
    # By the reporters alone: its force is that of the fast term.
    assert evaluations(mixed, "taken back") == 10
    assert evaluations(mixed, "fast") == 41
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 11
    simulation.step(1)
    assert evaluations(mixed, "dear") == 12


@pytest.mark.parametrize("isokinetic", [False, True])
def test_a_barostat_costs_one_slow_evaluation_for_each_trial(corrected_water, isokinetic):
    mixed = mixed_of(corrected_water)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 5)
    barostat.setRandomNumberSeed(4)
    mixed.system.addForce(barostat)
    integrator = MultipleTimeStepIntegrator(mixed, 300.0, 1.0, 0.002, inner_steps=2, isokinetic=isokinetic)
    simulation = app.Simulation(mixed.topology, mixed.system, integrator, openmm.Platform.getPlatform("Reference"))
    simulation.context.setPositions(corrected_water[2])
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(40)
    trials = 40 // 5
    assert evaluations(mixed, "dear") <= 40 + trials
    volumes = simulation.context.getState().getPeriodicBoxVolume()._value
    assert volumes != pytest.approx(1.26**3, rel=1e-6)  # some trial was accepted


def test_a_force_that_was_added_too_late_is_an_error(corrected_water):
    mixed = mixed_of(corrected_water)
    integrator = MultipleTimeStepIntegrator(mixed, 300.0, 1.0, 0.002, inner_steps=2)
    late = openmm.CustomExternalForce("x^2")
    late.setForceGroup(29)
    mixed.system.addForce(late)
    simulation = app.Simulation(mixed.topology, mixed.system, integrator, openmm.Platform.getPlatform("Reference"))
    simulation.context.setPositions(corrected_water[2])
    with pytest.raises(HamiltonianError, match=r"\[29\], added after the integrator"):
        simulation.step(1)


def test_correction_terms():
    ml, qm, region, core = SettingsOnly("ML"), SettingsOnly("QM"), Region("site", range(6)), Region("core", range(3))

    def names(*terms):
        return correction_terms(Hamiltonian([Term(p, r, embedding="mechanical", coefficient=c) for p, r, c in terms]))

    assert names((ml, region, 1.0), (qm, region, 1.0), (ml, region, -1.0)) == ("site/QM", "site/-ML")
    assert names((ml, region, 1.0), (qm, core, 1.0), (ml, core, -1.0)) == ("core/QM", "core/-ML")
    with pytest.raises(HamiltonianError, match="no correction that could be slow"):
        names((qm, region, 1.0))
    with pytest.raises(HamiltonianError, match="load a model once"):
        names((ml, region, 1.0), (qm, region, 1.0), (SettingsOnly("ML"), region, -1.0))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((300.0, 1.0, 0.004, 0), SettingError, "inner_steps is a whole number"),
        ((300.0, 1.0, 0.004, 2.0), SettingError, "inner_steps is a whole number"),
        ((300.0, 1.0, -0.004, 2), SettingError, "step_size is a number above zero"),
        ((0.0, 1.0, 0.004, 2), SettingError, "temperature is a number above zero"),
        ((300.0, -1.0, 0.004, 2), SettingError, "friction is zero or a number above, in /picosecond, got -1"),
    ],
)
def test_wrong_numbers_are_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        MultipleTimeStepIntegrator(springs(), *arguments, slow=["slow"])


def test_wrong_slow_terms_are_refused():
    with pytest.raises(HamiltonianError, match="there is no term 'slwo'.*slow"):
        MultipleTimeStepIntegrator(springs(), 300.0, 1.0, 0.004, 2, slow=["slwo"])
    with pytest.raises(HamiltonianError, match="name at least one slow term"):
        MultipleTimeStepIntegrator(springs(), 300.0, 1.0, 0.004, 2, slow=[])
    shared = springs()
    shared.force("fast").setForceGroup(1)
    with pytest.raises(HamiltonianError, match="share a force group"):
        MultipleTimeStepIntegrator(shared, 300.0, 1.0, 0.004, 2, slow=["slow"])
