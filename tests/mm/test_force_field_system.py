"""A System of the force field only, as reporters and run directories see it."""

from __future__ import annotations

import openmm
import pytest
from openmm import app

from qmmlmm.errors import HamiltonianError, SettingError, UnsupportedSystemError
from qmmlmm.mm.force_field_system import ForceFieldSystem
from qmmlmm.runs import RunDirectory
from tests.toy_systems import molecule_among_ions


def test_a_run_directory_takes_it_and_its_energy_is_that_of_the_system(tmp_path):
    case = molecule_among_ions(periodic=True)
    plain = ForceFieldSystem(case.topology, case.system)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(case.topology, plain.system, openmm.VerletIntegrator(0.0005), platform)
    simulation.context.setPositions(case.positions)
    energy = simulation.context.getState(energy=True).getPotentialEnergy()
    assert plain.term_energies(simulation.context) == {"MM": energy}
    with RunDirectory(tmp_path, plain) as run:
        run.attach(simulation, trajectory_interval=2, energy_interval=2, checkpoint_interval=2, total_steps=2)
        run.run(simulation, 2)
    header, row = (tmp_path / "energies.csv").read_text().splitlines()
    assert header.startswith('#"Step","Time (ps)","MM (kJ/mol)","Potential Energy')
    assert row.split(",")[2] == row.split(",")[3]
    assert plain.describe()["terms"] == []


def test_what_does_not_fit_is_refused():
    case = molecule_among_ions(periodic=True)
    with pytest.raises(UnsupportedSystemError, match="the Topology has .* atoms and the System 0 particles"):
        ForceFieldSystem(case.topology, openmm.System())
    with pytest.raises(SettingError, match=r"system is an openmm.System"):
        ForceFieldSystem(case.topology, None)
    with pytest.raises(HamiltonianError, match="there is no term 'x'"):
        ForceFieldSystem(case.topology, case.system).recall("x", {})
