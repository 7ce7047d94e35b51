"""Charge and multiplicity of a region reach models of openmm-ml, or the region is refused."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from qmmlmm import OpenMMMLPotential
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.geometry import Geometry

openmmml = pytest.importorskip("openmmml")
calculator = pytest.importorskip("ase.calculators.calculator")

from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

X = Geometry(np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))


class Springs(MLPotentialImpl):
    """A spring whose stiffness depends on what the model reads."""

    reads = ("charge", "multiplicity")

    def addForces(self, topology, system, atoms, forceGroup, **options):
        stiffness = 1000.0 + sum(100.0 * options[name] for name in self.reads)
        force = openmm.HarmonicBondForce()
        force.addBond(0, 1, 0.1, stiffness)
        system.addForce(force)


class Deaf(Springs):
    reads = ()


class Factory(MLPotentialImplFactory):
    def __init__(self, kind):
        self.kind = kind

    def createImpl(self, name, **options):
        return self.kind()


openmmml.MLPotential.registerImplFactory("reads charge, for a test", Factory(Springs))
openmmml.MLPotential.registerImplFactory("reads nothing, for a test", Factory(Deaf))


def region(charge, multiplicity):
    return RegionSpecification("ion/ML", np.array([8, 1]), charge, multiplicity)


def energy_of(potential, charge, multiplicity):
    return potential.create_evaluator(region(charge, multiplicity)).evaluate(X, None).energy


def test_a_model_that_reads_them_is_given_charge_and_multiplicity():
    potential = OpenMMMLPotential(openmmml.MLPotential("reads charge, for a test"))
    energies = [energy_of(potential, charge, m) for charge, m in ((0, 1), (-1, 1), (0, 3), (-1, 2))]
    assert [energy / energies[0] for energy in energies] == pytest.approx([1.0, 10 / 11, 13 / 11, 11 / 11])


@pytest.mark.parametrize(
    ("charge", "multiplicity", "message"),
    [(-1, 1, "does not depend on the charge, and the region has charge -1"), (0, 3, "on the multiplicity.* 3")],
)
def test_a_model_that_reads_neither_refuses_an_ion_and_a_triplet(charge, multiplicity, message):
    potential = OpenMMMLPotential(openmmml.MLPotential("reads nothing, for a test"))
    energy_of(potential, 0, 1)
    with pytest.raises(PotentialError, match=f"term 'ion/ML': the model .*{message}.*OpenMMMLPotential"):
        energy_of(potential, charge, multiplicity)


def test_a_model_that_was_trained_for_an_ion_says_so():
    model = openmmml.MLPotential("reads nothing, for a test")
    potential = OpenMMMLPotential(model, charge=-1, multiplicity=2)
    assert energy_of(potential, -1, 2) == energy_of(OpenMMMLPotential(model), 0, 1)
    with pytest.raises(PotentialError, match="the model is for charge -1, the region has charge 0"):
        energy_of(potential, 0, 2)
    with pytest.raises(PotentialError, match="the model is for multiplicity 2, the region has multiplicity 1"):
        energy_of(potential, -1, 1)
    with pytest.raises(PotentialError, match="multiplicity is a whole number of 1 or more"):
        OpenMMMLPotential(model, multiplicity=0)
    with pytest.raises(PotentialError, match="charge is a whole number"):
        OpenMMMLPotential(model, charge=0.5)


class Listener(calculator.Calculator):
    """An ASE calculator that keeps what it is told."""

    implemented_properties = ("energy", "forces")

    def __init__(self):
        super().__init__()
        self.told = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=calculator.all_changes):
        super().calculate(atoms, properties, system_changes)
        sums = (atoms.get_initial_charges().sum(), atoms.get_initial_magnetic_moments().sum())
        self.told.append(dict(atoms.info) | {"sums": tuple(round(value) for value in sums)})
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}


def test_an_ase_calculator_finds_charge_and_spin_in_info():
    listener = Listener()
    model = openmmml.MLPotential("ase")
    for charge, multiplicity in ((-1, 2), (1, 2), (0, 1), (0, 3)):  # one calculator, at the same positions
        energy_of(OpenMMMLPotential(model, options={"calculator": listener}), charge, multiplicity)
        assert listener.told[-1] == {"charge": charge, "spin": multiplicity, "sums": (charge, multiplicity - 1)}
    energy_of(OpenMMMLPotential(model, options={"calculator": listener, "info": {"spin": 0, "head": "x"}}), 1, 1)
    assert listener.told[-1] == {"charge": 1, "spin": 0, "head": "x", "sums": (1, 0)}


def test_atoms_of_the_user_are_told_too():
    import ase

    listener = Listener()
    atoms = ase.Atoms("OH", positions=np.eye(2, 3), calculator=listener)
    energy_of(OpenMMMLPotential(openmmml.MLPotential("ase"), options={"aseAtoms": atoms}), -1, 1)
    assert listener.told[-1]["charge"] == -1
