import numpy as np
import openmm
import pytest
from openmm import app, unit

from systems.structure import Structure


def one_atom(n_particles: int = 1) -> Structure:
    topology = app.Topology()
    residue = topology.addResidue("AR", topology.addChain())
    topology.addAtom("AR", app.element.argon, residue)
    system = openmm.System()
    for _ in range(n_particles):
        system.addParticle(39.9)
    return Structure(topology, system, np.zeros((1, 3)) * unit.nanometer)


def test_parts_of_different_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Topology \(1\) as particles in its System \(2\)"):
        one_atom(n_particles=2)


def test_an_unknown_residue_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="the residue names are AR"):
        one_atom().select("LIG")


def test_charges_need_one_nonbonded_force() -> None:
    with pytest.raises(ValueError, match="this System has 0"):
        one_atom().charges()
