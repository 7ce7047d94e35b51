"""Segments of dynamics: the same from the same start and seed, and continued where the last one ended."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.coupling.interpolation import interpolated_hamiltonian
from qmmlmm.sampling.segments import Frame, SegmentSimulation
from tests.free_energy.spring_legs import CHEAP, UPPER, leg, spring
from tests.toy_potentials import fixed_in_openmm
from tests.toy_systems import molecule_among_ions

FIRST_LAW = 1e-3
"""Relative: work and change of the energy without heat, in steps of 1e-5 ps."""


def simulation(friction=10.0, step_size=0.005):
    given = leg()
    ends = [Hamiltonian([Term(spring(k), given.region, embedding="mechanical")]) for k in (CHEAP, UPPER)]
    mixed = create_mixed_system(given.topology, given.system, interpolated_hamiltonian(*ends, "lam"))
    made = SegmentSimulation(
        mixed, "lam", temperature=300.0, friction=friction, step_size=step_size, platform="Reference"
    )
    return made, Frame(given.positions, None, None)


def test_a_segment_is_the_same_whatever_was_computed_before():
    made, start = simulation()
    first = made.sample(start, 5, 0.3, 20)
    after = made.switch(first, 7, 0.0, 1.0, 10, 1)
    made.sample(first, 11, 1.0, 33)
    again = made.switch(first, 7, 0.0, 1.0, 10, 1)
    assert after[1] == again[1]
    assert np.array_equal(after[0].positions, again[0].positions)
    assert np.array_equal(after[0].velocities, again[0].velocities)
    assert made.switch(first, 8, 0.0, 1.0, 10, 1)[1] != after[1]


def test_without_heat_the_work_is_the_change_of_the_energy():
    made, start = simulation(friction=1e-12, step_size=1e-5)
    frame = made.sample(start, 5, 0.0, 10)

    def total():
        state = made.simulation.context.getState(energy=True)
        return (state.getPotentialEnergy() + state.getKineticEnergy())._value

    before = total()
    _, work = made.switch(frame, 6, 0.0, 1.0, 500, 10)
    assert abs(work) > 0.1
    assert work == pytest.approx(total() - before, rel=FIRST_LAW)


def test_the_derivative_is_the_difference_of_the_levels():
    made, start = simulation()
    frame = made.sample(start, 5, 0.4, 10)
    r2 = ((frame.positions[0] - frame.positions[1]) ** 2).sum()
    assert made.derivative() == pytest.approx(0.5 * (UPPER - CHEAP) * r2, rel=1e-9)


def test_a_box_that_a_barostat_changes_is_part_of_the_frame():
    case = molecule_among_ions(periodic=True)
    case.system.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 1))
    region = Region("mol", [0, 1, 2])
    one = Hamiltonian([Term(fixed_in_openmm([0.3, -0.6, 0.3]), region, embedding="electrostatic")])
    mixed = create_mixed_system(case.topology, case.system, interpolated_hamiltonian(one, one, "lam"))
    made = SegmentSimulation(mixed, "lam", temperature=300.0, friction=5.0, step_size=1e-4, platform="Reference")
    start = Frame(case.positions, None, 1.02 * case.box)
    frames = [made.sample(start, 5, 0.0, 30) for _ in range(2)]
    assert not np.allclose(frames[0].box, start.box, rtol=1e-12)
    assert np.array_equal(frames[0].box, frames[1].box)
