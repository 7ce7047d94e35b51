"""A run with a QM term: what its record says of the SCF, two restarts take the same steps, states are followed."""

import json
import shutil

import numpy as np
import openmm
import pytest
from openmm import app
from pyscf import lib

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.errors import QmmlmmWarning
from qmmlmm.qm import TDA
from qmmlmm.runs.run_directory import RunDirectory
from qmmlmm.units import BOHR_IN_NM
from systems.alanine_dipeptide import build

INTERVALS = {"trajectory_interval": 2, "energy_interval": 1, "checkpoint_interval": 5, "total_steps": 20}
NAME = "methyl/QM"


def new_simulation():
    structure = build(vacuum=True, constraints=None)
    term = Term(PySCFPotential("hf", "sto-3g"), Region("methyl", [10, 11, 12, 13]), embedding="electrostatic")
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
    integrator = openmm.VerletIntegrator(0.0005)
    simulation = app.Simulation(mixed.topology, mixed.system, integrator, openmm.Platform.getPlatform("Reference"))
    return structure, mixed, simulation


@pytest.fixture
def one_thread():
    with lib.with_omp_threads(1):  # sums over threads come in any order
        yield


def test_restarts_take_the_same_steps_bit_by_bit_and_the_record_counts_the_scf(tmp_path, one_thread):
    structure, mixed, simulation = new_simulation()
    with RunDirectory(tmp_path / "run", mixed) as run:
        simulation.context.setPositions(structure.positions)
        run.attach(simulation, **INTERVALS)
        run.run(simulation, 10)
    (session,) = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    counted = session["terms"][NAME]
    assert session["last_step"] == 10
    assert counted == json.loads(json.dumps(mixed.summary()))[NAME]
    assert counted["scf_results"] == counted["evaluations"] == 11
    assert counted["scf_converged_from"] == {"fresh guess": 1, "last density": 1, "extrapolated guess": 9}
    assert counted["scf_failed_from"] == {}
    assert counted["scf_cycles_mean"] == pytest.approx(counted["scf_cycles"] / 11, abs=0.01)

    ends = []
    for history in (True, False):
        _, mixed, simulation = new_simulation()
        if history:  # the process has computed other geometries before
            simulation.context.setPositions(structure.positions)
            simulation.step(3)
        folder = tmp_path / f"resumed_{history}"
        shutil.copytree(tmp_path / "run", folder)
        with RunDirectory(folder, mixed, resume=True) as run:
            assert run.resume(simulation) == 10
            run.attach(simulation, **INTERVALS)
            run.run(simulation, 4)
        assert mixed.results(NAME)["scf_guess"] == "extrapolated guess"
        ends.append(simulation.context.getState(positions=True, velocities=True))
    first, second = ends
    np.testing.assert_array_equal(first.getPositions(asNumpy=True)._value, second.getPositions(asNumpy=True)._value)
    np.testing.assert_array_equal(first.getVelocities(asNumpy=True)._value, second.getVelocities(asNumpy=True)._value)
    sessions = json.loads((folder / "run.json").read_text())["sessions"]
    assert [session["last_step"] for session in sessions] == [10, 14]


STEP = 0.0001  # ps
SPEED = 13.2  # nm/ps: a quarter of a bohr in ten steps
HEAVY = 10.0  # Da, so that forces change little of the way
SAME = 1e-3
"""kJ/mol, of energies from another guess and with other numbers of the states."""


def two_molecules(follow):
    """Return two hydrogen molecules far from each other, the first of which is pulled apart.

    The lowest excited state is on the second at first; the two cross where the bonds are alike.
    """
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("H2", chain)
        for name in ("H1", "H2"):
            topology.addAtom(name, app.Element.getBySymbol("H"), residue)
            system.addParticle(1.008)
            force.addParticle(0.0, 0.1, 0.0)
    system.addForce(force)
    potential = PySCFPotential("hf", "sto-3g", excited=TDA(3), state=1, follow_state=follow)
    region = Region("pair", range(4), charge=0, multiplicity=1)
    mixed = create_mixed_system(topology, system, Hamiltonian([Term(potential, region, embedding="mechanical")]))
    for atom in range(4):
        mixed.system.setParticleMass(atom, HEAVY)
    platform = openmm.Platform.getPlatform("Reference")
    return mixed, app.Simulation(topology, mixed.system, openmm.VerletIntegrator(STEP), platform)


def start(simulation):
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.4], [0.0, 40.0, 0.0], [0.3, 40.0, 1.5]])
    simulation.context.setPositions(positions * BOHR_IN_NM)
    simulation.context.setVelocities([[0, 0, 0], [0, 0, SPEED], [0, 0, 0], [0, 0, 0]])


def finish(folder, follow):
    """Resume the run and return the results of its last step, and the energy there."""
    mixed, simulation = two_molecules(follow)
    with RunDirectory(folder, mixed, resume=True) as run:
        assert run.resume(simulation) == 8
        run.attach(simulation, **INTERVALS)
        run.run(simulation, 2)
    return mixed.results("pair/QM"), simulation.context.getState(energy=True).getPotentialEnergy()._value


@pytest.mark.parametrize("follow", [True, False])
def test_a_resumed_run_goes_on_with_the_state_that_it_followed_through_a_crossing(tmp_path, follow):
    mixed, simulation = two_molecules(follow)
    with RunDirectory(tmp_path / "run", mixed) as run:
        start(simulation)
        run.attach(simulation, **INTERVALS)
        run.run(simulation, 8)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    before = mixed.results("pair/QM")
    np.testing.assert_array_equal(before["state_order"], [0, 2, 1])  # the crossing lies behind
    simulation.step(2)
    expected = simulation.context.getState(energy=True).getPotentialEnergy()._value

    results, energy = finish(tmp_path / "copy", follow)
    np.testing.assert_array_equal(results["state_order"], [0, 2, 1])
    assert results["state"] == (2 if follow else 1)
    assert energy == pytest.approx(expected, abs=SAME)


def test_a_run_whose_states_are_lost_counts_them_anew_and_says_so(tmp_path):
    mixed, simulation = two_molecules(True)
    with RunDirectory(tmp_path, mixed) as run:
        start(simulation)
        run.attach(simulation, **INTERVALS)
        run.run(simulation, 8)
    for name in ("memory.npz", "memory.npz.previous"):
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.warns(QmmlmmWarning, match="no memory of step 8"):
        results, _ = finish(tmp_path, True)
    assert results["state"] == 1
