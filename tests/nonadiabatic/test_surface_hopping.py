"""Surface hopping as a sampler: hops, energy, checkpoints; Tully's models with few trajectories."""

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm.nonadiabatic import FewestSwitches, LandauZener, SurfaceHopping, SurfacePoint, VelocityVerletIntegrator
from qmmlmm.units import BOHR_IN_NM
from tests.finite_differences import central_difference
from tests.nonadiabatic.tully import (
    DUAL,
    EXTENDED,
    MASS,
    MODELS,
    SIMPLE,
    SPEED_IN_OPENMM,
    ModelSurfaces,
    Packet,
    exact,
    simulation_of,
    surface_hopping,
)

FEW = 40  # trajectories
FAR = 4.0  # standard errors, with as many
STEP = 2e-4  # ps
SHORT = 5e-5  # ps
RANGE, JUMP = 1e-2, 1e-3
"""kJ/mol: range of the total energy in short steps, and its largest change in one: errors of velocity Verlet, which
fall with the square of the step. A hop changes the potential energy by some 30 kJ/mol."""


def launched(model=SIMPLE, *, x=-2.0, k=20.0, state=0, seed=1, step=STEP, with_couplings=True, **settings):
    surfaces = ModelSurfaces(model, with_couplings)
    simulation = simulation_of(surfaces, step)
    hopping = SurfaceHopping(simulation, surfaces, state, seed=seed, **settings)
    simulation.context.setPositions([[x * BOHR_IN_NM, 0, 0]])
    simulation.context.setVelocities([[k / MASS * SPEED_IN_OPENMM, 0, 0]])
    return hopping


def total_energy(hopping):
    state = hopping.simulation.context.getState(energy=True)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value


def place(hopping):
    state = hopping.simulation.context.getState(positions=True, velocities=True)
    return state.getPositions(asNumpy=True)._value[0, 0], state.getVelocities(asNumpy=True)._value[0, 0]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_force_is_that_of_the_active_state(model):
    hopping = launched(model)
    surfaces, context = ModelSurfaces(model), hopping.simulation.context

    def energies(place):
        context.setPositions([[place, 0, 0]])
        return surfaces.observe(context).energies

    for x in (-1.3, 0.4, 2.1):
        slopes = central_difference(energies, x * BOHR_IN_NM, 1.0, 1e-4)
        context.setPositions([[x * BOHR_IN_NM, 0, 0]])
        for state in (0, 1):
            surfaces.select(context, state)
            found = context.getState(forces=True, energy=True)
            assert found.getForces(asNumpy=True)._value[0, 0] == pytest.approx(-slopes[state], rel=1e-5, abs=1e-3)
            assert found.getPotentialEnergy()._value == pytest.approx(surfaces.observe(context).energies[state])


@pytest.mark.parametrize(
    ("method", "along"),
    [
        (FewestSwitches(), "velocity"),
        (FewestSwitches("couplings", substeps=5, decoherence="none"), "coupling"),
        (LandauZener(), "velocity"),
    ],
)
def test_the_total_energy_is_kept_along_a_trajectory_and_across_its_hops(method, along):
    for seed in range(20):
        hopping = launched(method=method, rescale_along=along, seed=seed, step=SHORT)
        hopping.step(1)
        energies = [total_energy(hopping)]
        for _ in range(480):
            hopping.step(1)
            energies.append(total_energy(hopping))
        if any(hop.accepted for hop in hopping.hops):
            break
    assert any(hop.accepted and hop.energy_change > 1.0 for hop in hopping.hops)
    assert np.ptp(energies) < RANGE
    assert abs(np.diff(energies)).max() < JUMP
    assert np.linalg.norm(hopping.amplitudes) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("model", "k", "method"),
    [
        (SIMPLE, 20, FewestSwitches(substeps=4)),
        (SIMPLE, 20, FewestSwitches("couplings", substeps=4, decoherence="none")),
        (DUAL, 30, FewestSwitches(substeps=4, decoherence="none")),
        (EXTENDED, 30, FewestSwitches(substeps=4)),
    ],
    ids=["simple", "simple, couplings", "dual", "extended"],
)
def test_transmission_and_reflection_are_near_the_exact_ones(model, k, method):
    packet = Packet(k)
    expected = exact(model, packet)
    found = surface_hopping(
        model, packet, FEW, method=method, resolution=0.2, with_couplings=method.propagation == "couplings"
    )
    error = np.sqrt(np.clip(expected * (1 - expected), 0.01, None) / FEW)
    assert (abs(found - expected) / error).max() < FAR
    assert expected.max() < 0.8  # no model where nothing happens


def test_the_exact_propagation_gives_the_published_numbers():
    # Simple crossing at k = 20, from a program of its own: 0.508/0.492.
    assert exact(SIMPLE, Packet(20))[1] == pytest.approx([0.508, 0.492], abs=5e-4)


def test_landau_zener_gives_the_numbers_of_the_formula():
    found = surface_hopping(SIMPLE, Packet(30), FEW, method=LandauZener(), resolution=0.05)
    # From another program, 0.318/0.682; fewest switches has 0.286.
    assert abs(found[1, 1] - 0.682) < FAR * np.sqrt(0.682 * 0.318 / FEW)


def test_reporters_see_the_velocities_after_a_hop_and_simulation_step_is_the_same():
    class Reporter:
        def __init__(self):
            self.rows = []

        def describeNextReport(self, simulation):
            return {"steps": 1, "periodic": False, "include": ["velocities", "energy"]}

        def report(self, simulation, state):
            self.rows.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)

    rows, ends = [], []
    for through_simulation in (False, True):
        hopping, reporter = launched(seed=3, step=SHORT), Reporter()
        hopping.simulation.reporters.append(reporter)
        (hopping.simulation if through_simulation else hopping).step(480)
        rows.append(reporter.rows)
        ends.append(place(hopping))
    assert hopping.hops
    assert rows[0] == rows[1]
    assert ends[0] == ends[1]
    assert np.ptp(rows[0]) < RANGE


@pytest.mark.parametrize("method", [FewestSwitches(), LandauZener(), FewestSwitches("couplings")])
def test_a_run_from_a_checkpoint_takes_the_same_steps(method, tmp_path):
    whole = launched(EXTENDED, x=-1.0, method=method, seed=5)
    whole.step(60)
    path = tmp_path / "hopping.chk"
    whole.save_checkpoint(path)
    whole.step(150)
    resumed = launched(EXTENDED, x=3.0, method=method, seed=99)
    resumed.load_checkpoint(path)
    assert resumed.simulation.currentStep == 60
    resumed.step(150)
    assert place(resumed) == place(whole)
    assert (resumed.amplitudes == whole.amplitudes).all()
    assert resumed.hops == whole.hops


def test_a_damaged_checkpoint_and_one_of_another_method_are_refused(tmp_path):
    hopping = launched()
    hopping.step(2)
    path = tmp_path / "hopping.chk"
    hopping.save_checkpoint(path)
    with pytest.raises(ValueError, match="FewestSwitches"):
        launched(method=LandauZener()).load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="no checkpoint"):
        hopping.load_checkpoint(path)


class _Certain(np.random.Generator):
    """Draws zero: every possible hop is taken."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def random(self):
        return 0.0


@pytest.mark.parametrize("frustrated", ["keep", "reverse"])
def test_a_frustrated_hop_keeps_the_surface_and_keeps_or_reverses_the_velocity(frustrated):
    hopping = launched(k=4.0, x=-0.5, frustrated=frustrated)
    hopping._random = _Certain()
    speeds = []
    for _ in range(30):
        hopping.step(1)
        speeds.append(place(hopping)[1])
        if hopping.hops:
            break
    assert not hopping.hops[0].accepted
    assert hopping.state == 0
    assert (speeds[-1] > 0) == (frustrated == "keep")


class Plane:
    """Two flat states, whose coupling is along y; a particle of the region and one of the surroundings."""

    n_states = 2
    atoms = np.array([0])
    gap, strength = 5.0, 20.0  # kJ/mol, 1/nm

    def system(self):
        system, force = openmm.System(), openmm.CustomExternalForce(f"{self.gap}*state")
        force.addGlobalParameter("state", 0)
        force.addParticle(0)
        for mass in (4.0, 7.0):
            system.addParticle(mass)
        system.addForce(force)
        return system

    def select(self, context, state):
        context.setParameter("state", state)

    def observe(self, context):
        couplings = np.zeros((2, 2, 2, 3))
        couplings[0, 1, :, 1] = self.strength, 3.0
        couplings[1, 0] = -couplings[0, 1]
        return SurfacePoint(np.array([0.0, self.gap]), np.array([[0.8, 0.6], [-0.6, 0.8]]), couplings)

    def memory(self):
        return {}

    def recall(self, memory):
        pass


@pytest.mark.parametrize("propagation", ["local diabatisation", "couplings"])
@pytest.mark.parametrize("along", ["coupling", "velocity"])
@pytest.mark.parametrize("frustrated", ["keep", "reverse"])
def test_momenta_change_along_the_coupling_or_the_velocity_and_the_surroundings_keep_theirs(
    propagation, along, frustrated
):
    def hopped(state, speeds):
        surfaces = Plane()
        topology = app.Topology()
        residue = topology.addResidue("X", topology.addChain())
        for _ in range(2):
            topology.addAtom("X", None, residue)
        integrator = VelocityVerletIntegrator(0.0005)
        simulation = app.Simulation(topology, surfaces.system(), integrator, openmm.Platform.getPlatform("Reference"))
        method = FewestSwitches(propagation, decoherence="none")
        hopping = SurfaceHopping(simulation, surfaces, state, method=method, rescale_along=along, frustrated=frustrated)
        hopping._random = _Certain()
        simulation.context.setPositions(np.zeros((2, 3)))
        simulation.context.setVelocities(speeds)
        hopping.step(1)
        return hopping, simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value

    speeds = np.array([[3.0, 1.0, 0.5], [0.3, 0.2, 0.1]])
    kinetic = 0.5 * 4.0 * (speeds[0] ** 2).sum()
    # Upward there are 20.5 kJ/mol in all, but 2 along y, and 5 are needed.
    hopping, up = hopped(0, speeds)
    assert [hop.accepted for hop in hopping.hops] == [along == "velocity"]
    if along == "velocity":
        assert up[0] == pytest.approx(speeds[0] * np.sqrt(1.0 - Plane.gap / kinetic))
    else:
        assert up[0] == pytest.approx(speeds[0] * [1.0, -1.0 if frustrated == "reverse" else 1.0, 1.0])
    hopping, down = hopped(1, speeds)
    assert [hop.accepted for hop in hopping.hops] == [True]
    if along == "velocity":
        assert down[0] == pytest.approx(speeds[0] * np.sqrt(1.0 + Plane.gap / kinetic))
    else:
        assert down[0] == pytest.approx([3.0, np.sqrt(1.0 + Plane.gap / 2.0), 0.5])
    for found in (up, down):
        assert (found[1] == speeds[1]).all()


class Lines:
    """Two straight lines that cross without any coupling, at x = 0; states are in the order of energy."""

    n_states = 2
    atoms = np.array([0])
    slope = 2000.0  # kJ/(mol nm)

    def __init__(self):
        self._last = None

    def system(self):
        force = openmm.CustomExternalForce(f"(2*state-1)*{self.slope}*abs(x)")
        force.addGlobalParameter("state", 0)
        force.addParticle(0)
        system = openmm.System()
        system.addParticle(4.0)
        system.addForce(force)
        return system

    def select(self, context, state):
        context.setParameter("state", state)

    def observe(self, context):
        x = context.getState(positions=True).getPositions(asNumpy=True)._value[0, 0]
        last, self._last = self._last, x
        swapped = last is not None and last * x < 0
        overlaps = None if last is None else np.eye(2)[::-1] if swapped else np.eye(2)
        return SurfacePoint(np.array([-1.0, 1.0]) * self.slope * abs(x), overlaps)

    def memory(self):
        return {}

    def recall(self, memory):
        self._last = None


@pytest.mark.parametrize("method", [FewestSwitches(), LandauZener()])
def test_a_trivial_crossing_is_gone_through_without_a_hop_and_without_a_kink(method):
    surfaces = Lines()
    topology = app.Topology()
    topology.addAtom("X", None, topology.addResidue("X", topology.addChain()))
    integrator = VelocityVerletIntegrator(0.0005)
    simulation = app.Simulation(topology, surfaces.system(), integrator, openmm.Platform.getPlatform("Reference"))
    hopping = SurfaceHopping(simulation, surfaces, 0, method=method, seed=2)
    start, speed = -0.00303, 2.0
    simulation.context.setPositions([[start, 0, 0]])
    simulation.context.setVelocities([[speed, 0, 0]])
    steps = 10
    hopping.step(steps)
    assert hopping.state == 1
    assert not hopping.hops
    assert hopping.populations == pytest.approx([0.0, 1.0], abs=1e-9)
    # A constant force all the way, as of the one line: velocity Verlet is exact.
    time = steps * 0.0005
    acceleration = -Lines.slope / 4.0
    assert place(hopping) == pytest.approx(
        (start + speed * time + 0.5 * acceleration * time**2, speed + acceleration * time), rel=1e-12
    )


def test_wrong_settings_are_explained():
    surfaces = ModelSurfaces(SIMPLE)
    simulation = simulation_of(surfaces, STEP)
    for settings, message in (
        ({"state": 2}, "states 0 to 1"),
        ({"rescale_along": "speed"}, "rescale_along is one of"),
        ({"frustrated": "stop"}, "frustrated is one of"),
        ({"method": "tully"}, "method is FewestSwitches"),
        ({"method": LandauZener(), "rescale_along": "coupling"}, "no couplings"),
    ):
        with pytest.raises(ValueError, match=message):
            SurfaceHopping(simulation, surfaces, **({"state": 0} | settings))
    for arguments, message in ((("overlaps",), "propagation"), (("couplings", 0), "substeps")):
        with pytest.raises(ValueError, match=message):
            FewestSwitches(*arguments)
    with pytest.raises(ValueError, match="decoherence"):
        FewestSwitches(decoherence="yes")
    with pytest.raises(ValueError, match="step_size is a number above zero"):
        VelocityVerletIntegrator(0.0)
    plain = app.Simulation(simulation.topology, surfaces.system(), openmm.VerletIntegrator(0.001))
    with pytest.raises(ValueError, match="VerletIntegrator"):
        SurfaceHopping(plain, surfaces, 0)
    with pytest.raises(ValueError, match="no derivative couplings"):
        launched(with_couplings=False, method=FewestSwitches("couplings")).step(1)
