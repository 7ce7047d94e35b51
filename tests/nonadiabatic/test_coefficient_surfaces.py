"""States that are terms of their own take the same Landau-Zener trajectories as the states of one term."""

import numpy as np
import pytest

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.errors import HamiltonianError
from qmmlmm.nonadiabatic import LandauZener, SurfaceHopping, TermSurfaces
from qmmlmm.nonadiabatic.coefficient_surfaces import CoefficientSurfaces
from qmmlmm.units import BOHR_IN_NM
from tests.nonadiabatic.vibronic import CROSSING, VibronicPotential, molecule, simulation_of, vibronic_system

STRETCHED = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, (CROSSING + 0.3) * BOHR_IN_NM]])


def two_terms():
    topology, system = molecule()
    region = Region("co", (0, 1), charge=0, multiplicity=1)
    terms = [
        Term(VibronicPotential(0), region, embedding="mechanical", coefficient="1-s1", name="co/S0"),
        Term(VibronicPotential(1), region, embedding="mechanical", coefficient="s1", name="co/S1"),
    ]
    return create_mixed_system(topology, system, Hamiltonian(terms, parameters={"s1": 1.0}))


def test_trajectories_are_those_of_a_term_with_both_states():
    one, two = vibronic_system(), two_terms()
    ends, hops = [], []
    for mixed, surfaces in ((one, TermSurfaces(one, "co/QM")), (two, CoefficientSurfaces(two, ["s1"]))):
        simulation = simulation_of(mixed)
        for seed in range(8):
            hopping = SurfaceHopping(simulation, surfaces, 1, method=LandauZener(), seed=seed)
            simulation.context.setPositions(STRETCHED)
            simulation.context.setVelocities(np.zeros((2, 3)))
            simulation.context.setTime(0.0)
            simulation.context.setStepCount(0)
            hopping.step(150)
            ends.append(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value)
            hops.append([(hop.step, hop.target, hop.accepted) for hop in hopping.hops])
    assert hops[:8] == hops[8:]
    assert any(hops)
    assert np.array(ends[:8]) == pytest.approx(np.array(ends[8:]), abs=1e-9)


def test_parameters_that_switch_no_states_are_refused():
    for names in ([], ["s2"], ["s1", "s1"], "s1"):
        with pytest.raises(HamiltonianError, match="different parameters|different names|list of names"):
            CoefficientSurfaces(two_terms(), names)
