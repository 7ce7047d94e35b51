"""Potentials obey the contract, and those that do not are found out. PySCF and xTB: tests/qm, tests/xtb."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import openmm
import openmmml
import pytest
import torch

from qmmlmm import ForceFieldPotential, MLPotential, OpenMMMLPotential, OpenMMPotential, check_potential
from qmmlmm.coupling import Capabilities, EvaluatedPotential, Evaluation, Evaluator, StateResults
from qmmlmm.embedding.fixed_charges import charges_in_field
from qmmlmm.errors import PotentialError
from qmmlmm.ml.ml_potential import region_potential
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from tests.toy_potentials import Springs, SpringsInField

WATER = [8, 1, 1], np.array([[0.0, 0.0, 0.0], [0.0985, 0.0, 0.0], [-0.025, 0.094, 0.01]])


def checked(potential, molecule, charge=0, multiplicity=1, tolerance=1e-5):
    table = io.StringIO()
    return check_potential(potential, *molecule, charge, multiplicity, tolerance=tolerance, stream=table)


def response_network(members=1):
    torch.manual_seed(3)
    settings = ResponseSettings(features=8, layers=1, radial_functions=4, near_functions=4, near_features=4)
    network = ResponseNetwork([8, 1, 1], [(0, 1), (0, 2)], settings, members=members, dtype=torch.float64)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return region_potential(network.eval())


def water_in_openmm():
    system, force, bonds = openmm.System(), openmm.NonbondedForce(), openmm.HarmonicBondForce()
    for charge in (-0.8, 0.4, 0.4):
        system.addParticle(1.0)
        force.addParticle(charge, 0.3, 0.1)
    for hydrogen in (1, 2):
        bonds.addBond(0, hydrogen, 0.1, 1e5)
    force.createExceptionsFromBonds([(0, 1), (0, 2)], 0.8333, 0.5)
    system.addForce(force)
    system.addForce(bonds)
    return system


@pytest.mark.parametrize(
    "potential",
    [
        MLPotential(Springs(), elements=[1, 8]),
        MLPotential(SpringsInField(), elements=[1, 8], embeddings=["mechanical", "electrostatic"]),
    ],
    ids=["positions", "field"],
)
def test_torch_modules_obey_the_contract(potential):
    checked(potential, WATER)


@pytest.mark.parametrize("members", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_response_network_obeys_the_contract(members):
    report = checked(response_network(members), WATER)
    assert any(result.name == "total charge in a constant potential" for result in report.results)


def test_a_saved_model_obeys_the_contract(tmp_path):
    MLPotential(Springs(), elements=[1, 8]).save(tmp_path / "springs.pt")
    checked(MLPotential.load(tmp_path / "springs.pt", trust_code=True), WATER)


def test_a_system_of_openmm_obeys_the_contract():
    checked(OpenMMPotential(water_in_openmm()), WATER)


class WaterForceField(openmmml.mlpotential.MLPotentialImpl):
    """A model of openmm-ml that knows periodic images."""

    def addForces(self, topology, system, atoms, forceGroup, **args):
        water = water_in_openmm()  # owns the forces
        for force in water.getForces():
            copy = openmm.XmlSerializer.clone(force)
            if isinstance(copy, openmm.NonbondedForce) and topology.getPeriodicBoxVectors() is not None:
                copy.setNonbondedMethod(openmm.NonbondedForce.PME)
                copy.setCutoffDistance(0.5)
                copy.setPMEParameters(9.0, 64, 64, 64)
            system.addForce(copy)


class WaterFactory(openmmml.mlpotential.MLPotentialImplFactory):
    def createImpl(self, name, **args):
        return WaterForceField()


@pytest.mark.parametrize("long_range", [False, True])
def test_a_model_of_openmm_ml_obeys_the_contract(long_range):
    openmmml.MLPotential.registerImplFactory("water-force-field", WaterFactory())
    potential = OpenMMMLPotential(openmmml.MLPotential("water-force-field"), long_range=long_range)
    report = checked(potential, WATER)
    assert any("with periodic images" in result.name for result in report.results) == long_range


def test_the_force_field_has_no_evaluator_to_check():
    # It is the difference of two Systems; tests/mm/test_force_field_potential.py compares it with them.
    with pytest.raises(PotentialError, match="takes a subclass of .*EvaluatedPotential, got ForceFieldPotential"):
        check_potential(ForceFieldPotential(), *WATER)


# --- potentials that do not do what they say ---


class HonestEvaluator(Evaluator):
    """Springs and charges, with a second state above the first."""

    charges = np.array([-0.8, 0.4, 0.4])
    n_states = 2

    def __init__(self):
        self.state = 0

    def evaluate(self, geometry, field):
        bonds = geometry.positions[:, None] - geometry.positions
        stretch = (bonds**2).sum(axis=-1) - 16.0
        constant = 1e-4 * (1.0 + self.state)
        energy, gradient = constant * (stretch**2).sum(), 8 * constant * (stretch[..., None] * bonds).sum(axis=1)
        electric = Evaluation(0.0, 0.0 * gradient)
        if field is not None:
            electric = charges_in_field(geometry.positions, self.charges, field)
        total = energy + electric.energy
        first = total - self.state * energy / (1 + self.state)
        energies = first + np.arange(self.n_states) * energy / (1 + self.state)
        found = replace(electric, energy=total, gradient=gradient + electric.gradient, charge_energies=None)
        return replace(found, states=self.states(energies))

    def states(self, energies):
        return StateResults(self.state, energies)

    def select_state(self, state):
        self.state = state


class WrongSign(HonestEvaluator):
    """Gives the force on the surroundings for their gradient."""

    def evaluate(self, geometry, field):
        found = super().evaluate(geometry, field)
        return replace(found, charge_gradient=-found.charge_gradient)


class WrongForces(HonestEvaluator):
    """Gives forces for the gradient of the region."""

    def evaluate(self, geometry, field):
        found = super().evaluate(geometry, field)
        return replace(found, gradient=-found.gradient)


class LostCharge(HonestEvaluator):
    """Charges that do not add up to the charge of the region."""

    charges = np.array([-0.8, 0.4, 0.39])


class MissingState(HonestEvaluator):
    """Declares two states and computes one."""

    def states(self, energies):
        return StateResults(0, energies[:1])

    def select_state(self, state):
        pass


class ChangesInput(HonestEvaluator):
    """Writes into the array that it was given."""

    def evaluate(self, geometry, field):
        found = super().evaluate(geometry, field)
        geometry.positions.setflags(write=True)
        geometry.positions[0] += 1e-3
        return found


class Claimed(EvaluatedPotential):
    """Hands out one of the evaluators above."""

    level = "MM"
    capabilities = Capabilities(frozenset({"mechanical", "electrostatic"}), n_states=2)

    def __init__(self, evaluator):
        self.evaluator = evaluator

    def create_evaluator(self, specification):
        return self.evaluator()


def test_the_model_for_what_is_wrong_is_right():
    checked(Claimed(HonestEvaluator), WATER)


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (WrongSign, "forces on the charges among point charges"),
        (WrongForces, "forces on the region in a vacuum"),
        (LostCharge, "total charge in a constant potential"),
        (MissingState, "state 1 of 2, which is declared but missing"),
        (ChangesInput, "inputs that were changed"),
    ],
)
def test_a_potential_that_breaks_the_contract_is_found_out(evaluator, message):
    table = io.StringIO()
    with pytest.raises(PotentialError, match=f"Claimed breaks the contract of a potential: .*{message}"):
        check_potential(Claimed(evaluator), *WATER, stream=table)
    assert "FAILED" in table.getvalue()


def test_what_is_right_about_it_is_not_reported():
    table = io.StringIO()
    with pytest.raises(PotentialError):
        check_potential(Claimed(LostCharge), *WATER, stream=table)
    failed = [line for line in table.getvalue().splitlines() if "FAILED" in line]
    assert len(failed) == 1
    assert failed[0].startswith("total charge in a constant potential")


def test_a_class_instead_of_a_potential_is_refused():
    with pytest.raises(PotentialError, match="got str"):
        check_potential("hf", *WATER)
