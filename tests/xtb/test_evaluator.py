"""The evaluator of xTB: the contract, same bits, threads, and what is an error."""

from __future__ import annotations

import gc
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from qmmlmm import XTBPotential, check_potential
from qmmlmm.coupling.potential import ExternalField, RegionSpecification
from qmmlmm.errors import ConvergenceError, EvaluationError, NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.units import ANGSTROM_IN_BOHR
from qmmlmm.xtb.multipoles import AtomicPotential
from qmmlmm.xtb.tblite_container import PotentialContainer, loaded_library

WATER = [8, 1, 1], 0, 1, np.array([[0.0, 0.0, 0.0], [0.0985, 0.0, 0.0], [-0.025, 0.094, 0.01]])
HYDROXIDE = [8, 1], -1, 1, np.array([[0.0, 0.0, 0.0], [0.02, 0.01, 0.0957]])
AMMONIUM = [7, 1, 1, 1, 1], 1, 1, 0.0595 * np.array([[0, 0, 0.1], [1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1.1]])
METHYLENE = [6, 1, 1], 0, 3, np.array([[0.0, 0.0, 0.0], [0.001, 0.095, 0.05], [0.002, -0.097, 0.052]])
HYDROGEN = [1, 1], 0, 1, np.array([[0.0, 0.0, 0.0], [0.01, 0.02, 0.072]])
COPPER = [29, 8, 1, 1], 1, 1, np.array([[0.0, 0.0, 0.0], [0.21, 0.01, 0.0], [0.26, 0.08, 0.0], [0.27, -0.07, 0.02]])
EXACT = 1e-6  # hartree/bohr, of all coordinates together; 3e-8 is measured


@pytest.mark.parametrize("method", ["gfn2-xtb", "gfn1-xtb"])
@pytest.mark.parametrize(
    ("numbers", "charge", "multiplicity", "positions"),
    [WATER, HYDROXIDE, AMMONIUM, METHYLENE, HYDROGEN, COPPER],
    ids=["water", "anion", "cation", "triplet", "hydrogen", "copper"],
)
def test_xtb_obeys_the_contract(method, numbers, charge, multiplicity, positions):
    potential = XTBPotential(method, accuracy=1e-4)
    report = check_potential(potential, numbers, positions, charge, multiplicity, tolerance=EXACT, stream=io.StringIO())
    assert len(report.results) > 15


@pytest.mark.parametrize("multipoles", [0, 1, 2])
def test_each_rank_of_multipoles_obeys_the_contract(multipoles):
    numbers, charge, multiplicity, positions = WATER
    potential = XTBPotential(multipoles=multipoles, accuracy=1e-4)
    check_potential(potential, numbers, positions, charge, multiplicity, tolerance=EXACT, stream=io.StringIO())


# --- same bits ---


def same(first, second):
    return first.energy == second.energy and np.array_equal(first.gradient, second.gradient)


def test_results_have_the_same_bits_whatever_was_computed_before_or_in_another_evaluator(water, geometry, field):
    potential = XTBPotential()
    evaluator = potential.create_evaluator(water)
    first = evaluator.evaluate(geometry, field)
    other = XTBPotential("gfn1-xtb").create_evaluator(RegionSpecification("other", np.array([1, 1, 8]), 1, 2))
    moved = Geometry(geometry.positions + 0.1 * np.arange(9).reshape(3, 3))
    other.evaluate(moved, field)
    evaluator.evaluate(moved, None)
    other.evaluate(geometry, None)
    assert same(evaluator.evaluate(geometry, field), first)
    assert same(pickle.loads(pickle.dumps(potential)).create_evaluator(water).evaluate(geometry, field), first)
    assert evaluator.memory() == {}
    assert evaluator.summary()["calculations"] == 3
    assert evaluator.summary()["scf_cycles"] > 20


def test_evaluators_in_threads_have_the_same_bits(water, geometry, field):
    potentials = [XTBPotential(), XTBPotential("gfn1-xtb")]
    geometries = [Geometry(geometry.positions * (1.0 + 0.01 * k)) for k in range(6)]
    tasks = [(potential.create_evaluator(water), place) for potential in potentials for place in geometries]
    expected = [evaluator.evaluate(place, field) for evaluator, place in tasks]
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(lambda task: task[0].evaluate(task[1], field), tasks * 5))
    assert all(same(result, expected[k % len(tasks)]) for k, result in enumerate(found))


def test_inputs_are_unchanged(water, geometry, field):
    before = geometry.positions.copy(), field.positions.copy(), field.point_charges.copy()
    XTBPotential().create_evaluator(water).evaluate(geometry, field)
    for old, new in zip(before, (geometry.positions, field.positions, field.point_charges), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_number_of_threads_is_that_of_the_user_afterwards(water, geometry):
    library = loaded_library()
    before = library.max_threads
    seen = []
    evaluator = XTBPotential(threads=before + 1).create_evaluator(water)
    original = PotentialContainer.add_potential

    def add_potential(self, potential):
        seen.append(library.max_threads)
        original(self, potential)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PotentialContainer, "add_potential", add_potential)
        evaluator.evaluate(geometry, None)
    assert set(seen) == {before + 1}
    assert library.max_threads == before


def test_containers_are_freed_with_their_calculations(water, geometry, field):
    evaluator = XTBPotential().create_evaluator(water)
    for _ in range(20):
        evaluator.evaluate(geometry, field)
    gc.collect()
    assert len(loaded_library().containers) == 0


# --- errors ---


def test_atoms_on_top_of_each_other_are_an_error(water, geometry):
    positions = geometry.positions.copy()
    positions[2] = positions[1] + [0.0, 0.0, 0.05 * ANGSTROM_IN_BOHR]
    evaluator = XTBPotential().create_evaluator(water)
    with pytest.raises(EvaluationError, match=r"water/XTB.*closer than 0.1 angstrom.*1 and 2 \(0.05 angstrom\)"):
        evaluator.evaluate(Geometry(positions), None)


def test_a_charge_on_an_atom_is_an_error(water, geometry, field):
    inside = replace(field, positions=geometry.positions + 0.1)
    with pytest.raises(EvaluationError, match="external point charge 0 lies 0.09 angstrom from atom 0"):
        XTBPotential().create_evaluator(water).evaluate(geometry, inside)


def test_positions_of_the_wrong_shape_are_an_error(water):
    with pytest.raises(EvaluationError, match=r"positions have shape \(2, 3\), the region needs \(3, 3\)"):
        XTBPotential().create_evaluator(water).evaluate(Geometry(np.zeros((2, 3))), None)


def test_what_is_not_a_number_is_an_error_and_the_evaluator_works_afterwards(water, geometry, field):
    evaluator = XTBPotential().create_evaluator(water)
    expected = evaluator.evaluate(geometry, field)
    wrong = geometry.positions.copy()
    wrong[1, 2] = np.nan
    with pytest.raises(NonFiniteError, match="positions of atoms 1 are not finite"):
        evaluator.evaluate(Geometry(wrong), field)
    with pytest.raises(NonFiniteError, match="point_charges of external charges 0, 1, 2 are not finite"):
        evaluator.evaluate(geometry, replace(field, point_charges=np.full(3, np.inf)))
    nothing = np.zeros(0)
    not_a_number = ExternalField(
        np.zeros((0, 3)), nothing, nothing, None, lambda r: (np.full(len(r), np.nan), np.zeros_like(r))
    )
    with pytest.raises(NonFiniteError, match="potential of the surroundings is not finite at the atoms"):
        evaluator.evaluate(geometry, not_a_number)
    assert same(evaluator.evaluate(geometry, field), expected)


def test_a_field_that_does_not_converge_is_an_error_and_the_evaluator_works_afterwards(water, geometry, field):
    evaluator = XTBPotential().create_evaluator(water)
    expected = evaluator.evaluate(geometry, field)
    # A potential that changes with each cycle has no self-consistent solution.
    original = PotentialContainer.add_potential

    def add_potential(self, potential):
        self.set_scaled((-1.0) ** self.cycles)
        original(self, potential)

    def set_scaled(self, factor):
        strong = AtomicPotential(factor * np.array([0.5, -0.5, 0.0]), np.zeros((3, 3)), np.zeros((3, 3, 3)))
        cycles = self.cycles
        self.set(strong)
        self.cycles = cycles

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PotentialContainer, "set_scaled", set_scaled, raising=False)
        patch.setattr(PotentialContainer, "add_potential", add_potential)
        with pytest.raises(ConvergenceError, match="water/XTB.*does not converge.*charge 0 and multiplicity 1.*300 K"):
            evaluator.evaluate(geometry, field)
    assert same(evaluator.evaluate(geometry, field), expected)


def test_an_error_inside_tblite_reaches_the_user(water, geometry, field, monkeypatch):
    evaluator = XTBPotential().create_evaluator(water)
    expected = evaluator.evaluate(geometry, field)
    with monkeypatch.context() as patch:

        def fail(self, potential):
            raise EvaluationError("the arrays are elsewhere")

        patch.setattr(PotentialContainer, "add_potential", fail)
        with pytest.raises(EvaluationError, match="the arrays are elsewhere"):
            evaluator.evaluate(geometry, field)
    assert same(evaluator.evaluate(geometry, field), expected)


def test_a_potential_that_tblite_does_not_ask_for_is_an_error(water, geometry, field, monkeypatch):
    evaluator = XTBPotential().create_evaluator(water)
    monkeypatch.setattr(PotentialContainer, "set", lambda self, potential: loaded_library().containers.clear())
    with pytest.raises(EvaluationError, match="without a look at the potential"):
        evaluator.evaluate(geometry, field)
