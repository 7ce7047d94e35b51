"""Fit of the response of a molecule to a few labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.coupling import RegionSpecification
from qmmlmm.embedding.module_evaluator import ModuleEvaluator
from qmmlmm.errors import DataSetError, PotentialError, SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.learning import Labeller, fit_response, read_frames
from qmmlmm.learning.labels.frame_field import field_of_frame
from qmmlmm.ml import EmbeddedPotential, FixedResponse
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL
from tests.learning.loop.water_case import waters
from tests.toy_potentials import ELEMENTS, Springs

DATA = Path(__file__).parents[2] / "benchmarks" / "data" / "acetone_water.xyz.gz"
# Of the interaction, which is some 50 kJ/mol and 200 kJ/(mol nm); what the regularisation leaves.
SAME_ENERGY, SAME_FORCE = 0.05, 1.0  # kJ/mol, kJ/(mol nm)
# Bounds with ten labels: errors of interaction energy and of forces.
ENERGY_BOUND, FORCE_BOUND = 1.8, 45.0  # kJ/mol, kJ/(mol nm)


def water_frames(count):
    """Return labels of a water with a response, springs and other waters."""
    topology, system, positions = waters()
    empty, rng = FixedResponse([8, 1, 1], [(0, 1), (0, 2)]), np.random.default_rng(4)
    true = FixedResponse(
        [8, 1, 1], empty.bonds, 0, 2.0 + np.zeros(empty.n_classes), 0.2 * rng.normal(size=empty.n_coefficients)
    )
    base = MLPotential(Springs(0.01), elements=ELEMENTS)
    term = Term(EmbeddedPotential(base, true), Region("water", [0, 1, 2]), embedding="electrostatic")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    labeller = Labeller(mixed.evaluated_term("water/ML"), "springs and a response")
    moved = [positions + 0.006 * rng.normal(size=positions.shape) for _ in range(count)]
    return [labeller.label(Geometry(x), f"w-{k}") for k, x in enumerate(moved)]


def errors(response, frames):
    """Return errors of interaction energies, kJ/mol, and of forces on the region, kJ/(mol nm)."""
    specification = RegionSpecification("a", frames[0].atomic_numbers, frames[0].charge, 1)
    evaluator = ModuleEvaluator(specification, response)
    found = [evaluator.evaluate(Geometry(frame.positions), field_of_frame(frame)) for frame in frames]
    energies = [e.energy - (f.energy - f.vacuum_energy) for e, f in zip(found, frames, strict=True)]
    forces = [e.gradient + f.forces - f.vacuum_forces for e, f in zip(found, frames, strict=True)]
    return np.array(energies) * HARTREE_IN_KJ_PER_MOL, np.array(forces) * FORCE_AU_IN_OPENMM


def test_a_response_is_found_again_from_its_labels():
    frames = water_frames(16)
    energies, forces = errors(fit_response(frames[:12], ridge=1e-9), frames[12:])
    assert np.abs(energies).max() < SAME_ENERGY
    assert np.abs(forces).max() < SAME_FORCE


@pytest.mark.slow
def test_ten_labels_of_acetone_are_enough():
    frames = read_frames(DATA)
    energies, forces = errors(fit_response(frames[50::40][:10]), frames[:40])
    assert np.abs(energies).mean() < ENERGY_BOUND
    assert np.sqrt(np.mean(forces**2)) < FORCE_BOUND


def test_labels_that_do_not_suffice_are_refused():
    frames = water_frames(6)
    with pytest.raises(DataSetError, match="5 frames are too few for a response, 6 are needed"):
        fit_response(frames[:5])
    for changes in ({"near": None}, {"vacuum_forces": None}, {"field_gradient": None}):
        with pytest.raises(DataSetError, match="frame 'w-5' lacks the field, near charges or vacuum labels"):
            fit_response([*frames[:5], replace(frames[5], **changes)])
    with pytest.raises(DataSetError, match="a response is that of one charge"):
        fit_response([*frames[:5], replace(frames[5], charge=2)])
    with pytest.raises(SettingError, match="ridge"):
        fit_response(frames, ridge=0.0)
    far = [replace(f, positions=f.positions + np.array([[0, 0, 0], [0, 0, 0], [9, 9, 9]])) for f in frames]
    with pytest.raises(PotentialError, match="the bonds do not connect all atoms"):
        fit_response(far)
