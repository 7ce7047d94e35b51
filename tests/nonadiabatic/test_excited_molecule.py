"""Surface hopping on TDA states of methanimine in a box of water: overlaps, energy, and a checkpoint between steps."""

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.nonadiabatic import SurfaceHopping, TermSurfaces, VelocityVerletIntegrator
from qmmlmm.qm import TDA
from systems.methanimine_water import SOLUTE, build

STEP = 0.00025  # ps
KEPT = 1.0
"""kJ/mol in four steps: nothing is equilibrated, and water without Lennard-Jones terms is steep."""
SAME = 5e-5
"""Of amplitudes: another process converges the orbitals from another guess."""


def created():
    topology, system, positions = build()
    region = Region("imine", SOLUTE, charge=0, multiplicity=1)
    potential = PySCFPotential("hf", "sto-3g", excited=TDA(3), state=2, embedding_grid_level=0)
    mixed = create_mixed_system(topology, system, Hamiltonian([Term(potential, region, embedding="electrostatic")]))
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(topology, mixed.system, VelocityVerletIntegrator(STEP), platform)
    return SurfaceHopping(simulation, TermSurfaces(mixed, "imine/QM"), 2, seed=4), positions


def total_energy(hopping):
    state = hopping.simulation.context.getState(energy=True)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value


def test_a_trajectory_on_tda_states_goes_on_from_a_checkpoint_with_the_signs_of_its_states(tmp_path):
    whole, positions = created()
    whole.simulation.context.setPositions(positions)
    whole.simulation.context.setVelocitiesToTemperature(600.0, 3)
    whole.step(1)
    before = total_energy(whole)
    whole.step(1)
    path = tmp_path / "imine.chk"
    whole.save_checkpoint(path)
    whole.step(2)
    resumed, _ = created()
    resumed.load_checkpoint(path)
    resumed.step(2)
    assert abs(total_energy(whole) - before) < KEPT
    assert resumed.amplitudes == pytest.approx(whole.amplitudes, abs=SAME)
    assert np.diag(resumed.point.overlaps) == pytest.approx(np.diag(whole.point.overlaps), abs=1e-5)
    # States mix a little: the signs are seen.
    assert abs(whole.amplitudes[1]) > 10 * SAME
    assert resumed.point.overlaps == pytest.approx(whole.point.overlaps, abs=1e-5)
