"""Results of a term as a table: an excited state along a few steps in a box."""

import csv

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.qm import TDA
from qmmlmm.runs.result_reporter import ResultReporter
from systems.methanimine_water import SOLUTE, build


@pytest.fixture
def run():
    topology, system, positions = build()
    potential = PySCFPotential("hf", "sto-3g", excited=TDA(3), state=1)
    term = Term(potential, Region("imine", SOLUTE, charge=0, multiplicity=1), embedding="electrostatic")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    integrator = openmm.VerletIntegrator(0.0001)
    simulation = app.Simulation(mixed.topology, mixed.system, integrator, openmm.Platform.getPlatform("Reference"))
    simulation.context.setPositions(positions * unit.nanometer)
    return mixed, simulation


def test_the_table_holds_what_the_term_reported_at_each_step(run, tmp_path):
    mixed, simulation = run
    path = tmp_path / "states.csv"
    reporter = ResultReporter(path, 1, mixed, "imine/QM", ["state", "state_energies", "transition_dipoles"])
    simulation.reporters.append(reporter)
    energies = []
    for _ in range(2):
        simulation.step(1)
        energies.append(mixed.results("imine/QM")["state_energies"])
    reporter.close()
    header, *rows = list(csv.reader(path.read_text()[1:].splitlines()))
    assert header[:5] == ["Step", "Time (ps)", "state", "state_energies[0] (hartree)", "state_energies[1] (hartree)"]
    assert header[-1] == "transition_dipoles[2][2] (e bohr)"
    table = np.array(rows, dtype=float)
    np.testing.assert_array_equal(table[:, 0], [1, 2])
    np.testing.assert_array_equal(table[:, 2], [1, 1])
    np.testing.assert_allclose(table[:, 3:6], energies, rtol=1e-14)


def test_a_result_that_is_not_there_is_named_with_the_nearest_one(run, tmp_path):
    mixed, simulation = run
    reporter = ResultReporter(tmp_path / "x.csv", 1, mixed, "imine/QM", ["state_energy"])
    simulation.reporters.append(reporter)
    with pytest.raises(ValueError, match="reports no 'state_energy'; it has .*Nearest names: .*state_energies"):
        simulation.step(1)
    reporter.close()
