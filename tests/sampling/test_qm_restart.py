"""A run with a QM term: what its record says of the SCF, and that two restarts take the same steps."""

import json
import shutil

import numpy as np
import openmm
import pytest
from openmm import app
from pyscf import lib

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.sampling.run_directory import RunDirectory
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
