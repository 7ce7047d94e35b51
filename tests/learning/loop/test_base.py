"""Loops whose models are differences to a base, which runs before there is a model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from qmmlmm import Hamiltonian, MLPotential, OpenMMPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.coupling import Difference, LevelOfTheory
from qmmlmm.errors import EvaluationError, HamiltonianError, QmmlmmWarning
from qmmlmm.geometry import Geometry
from qmmlmm.learning import ResponseNetwork, ResponseSettings, load_network
from qmmlmm.learning.loop import LoopError
from qmmlmm.learning.loop.loop_base import LoopBase
from tests.contexts import energy_and_forces, make_context
from tests.learning.loop import water_case
from tests.learning.loop.killed_course import course
from tests.learning.loop.water_case import make_loop, make_source, springs, waters
from tests.quick_torch import quick_torch
from tests.toy_potentials import ELEMENTS, EvaluatedSprings, Springs, fixed_in_openmm

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"), "1")
ROOT = Path(__file__).parents[3]


def weaker() -> OpenMMPotential:
    """Return springs that differ from those of the labels in their charges."""
    system = springs().system
    for k, charge in enumerate((-0.7, 0.35, 0.35)):
        system.getForce(1).setParticleParameters(k, charge, 0.1, 0.0)
    return OpenMMPotential(system)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Return a loop with an analytic base that ended, and its Systems."""
    systems = []
    with quick_torch():
        loop = make_loop(
            tmp_path_factory.mktemp("delta") / "loop",
            settings={"max_rounds": 1},
            base=weaker(),
            walkers=water_case.WALKERS[:1],
            on_model=lambda mixed, number: systems.append(mixed),
        )
        return loop, loop.run(), systems


@pytest.mark.slow
def test_walkers_run_with_base_and_difference(learned):
    _, result, systems = learned
    assert result.failed == 0
    assert list(systems[-1].terms) == ["water/base", "water/correction"]
    assert systems[-1].terms["water/base"].runner.evaluations > 40


@pytest.mark.slow
def test_the_model_file_is_the_difference_and_is_added_to_its_base(learned):
    _, result, _ = learned
    model = MLPotential.load(result.model)
    assert model.difference == Difference(
        LevelOfTheory("springs", springs().level_of_theory.settings), weaker().level_of_theory
    )
    region = Region("water", [0, 1, 2])
    with pytest.raises(HamiltonianError, match="is the difference springs - OpenMMPotential"):
        Term(model, region, embedding="electrostatic")
    topology, system, positions = waters()
    terms = [
        Term(weaker(), region, embedding="electrostatic"),
        Term(model, region, embedding="electrostatic", correction=True),
    ]
    with quick_torch():
        mixed = create_mixed_system(topology, system, Hamiltonian(terms))
        energy, forces = energy_and_forces(make_context(mixed.system, positions))
    assert np.isfinite(energy)
    assert np.isfinite(forces).all()


@pytest.mark.slow
def test_labels_are_of_the_target(learned):
    loop, _, _ = learned
    assert 'method="springs"' in next(loop.directory.glob("*.xyz")).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_directory_with_another_base_is_refused(learned):
    loop, _, _ = learned
    for base in (None, XTBPotential()):
        again = make_loop(loop.directory, settings={"max_rounds": 1}, base=base, walkers=water_case.WALKERS[:1])
        with pytest.raises(LoopError, match="holds a loop with other settings .*base"):
            again.run()


def difference_network(difference):
    return ResponseNetwork([8, 1, 1], (), ResponseSettings(features=4, layers=1), members=2, difference=difference)


OTHER = Difference(LevelOfTheory("springs"), LevelOfTheory("pm6"))
CASES = [
    *(({"base": value}, "base is a potential such as XTBPotential") for value in (5, "gfn2-xtb", [])),
    ({"base": MLPotential(Springs(), elements=ELEMENTS, difference=OTHER)}, "no energy of a level; take pm6 or a full"),
    ({"base": MLPotential(Springs(), elements=ELEMENTS)}, "MLPotential has no electrostatic embedding, which the term"),
    ({"base": weaker(), "network": ResponseSettings(dispersion="b3lyp-d3bj")}, "with a base leave it out"),
    ({"model": difference_network(OTHER)}, "the difference springs - pm6, the loop learns the energy of one level"),
    ({"base": weaker(), "model": difference_network(None)}, "the energy of one level, the loop learns the difference"),
    ({"base": weaker(), "model": difference_network(OTHER)}, "springs - pm6, the loop learns .*springs - OpenMM"),
]


@pytest.mark.parametrize(("changes", "message"), CASES, ids=[m[:30] for _, m in CASES])
def test_what_does_not_go_with_a_base_is_refused(tmp_path, changes, message):
    with pytest.raises(LoopError, match=message):
        make_loop(tmp_path / "loop", **changes)


def test_a_model_of_the_same_difference_starts_a_loop(tmp_path):
    given = difference_network(Difference(LevelOfTheory("springs"), weaker().level_of_theory))
    make_loop(tmp_path / "loop", base=weaker(), model=given)


def test_a_base_that_cannot_treat_the_region_is_refused(tmp_path):
    with pytest.raises(LoopError, match="base: .* the region has 3 atoms"):
        make_loop(tmp_path / "loop", base=fixed_in_openmm([0.1, -0.1]))


class NeverConverges(EvaluatedSprings):
    """A base that fails for every frame."""

    def create_evaluator(self, specification):
        raise EvaluationError("no convergence")


def test_a_label_that_the_base_cannot_compute_is_left_out_with_a_warning():
    topology, system, positions = waters()
    term = Term(springs(), Region("water", [0, 1, 2]), embedding="electrostatic")
    base = LoopBase(NeverConverges(np.zeros(3)), term, "springs")
    frame = make_source(topology, system, term).label(Geometry(positions))
    with pytest.warns(QmmlmmWarning, match="a label is not learned: .*no convergence"):
        assert base.learned([(1, frame)]) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_loop_with_xtb_below_that_is_killed_takes_the_course_of_one_that_is_not(tmp_path):
    command = [sys.executable, str(Path(water_case.__file__)), "--base", "gfn2-xtb"]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], env=environment, check=True, capture_output=True)
    longest = time.monotonic() - started
    kills = 0
    for share in (0.5, 0.8):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment, stdout=subprocess.DEVNULL)
        try:
            process.wait(share * longest)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    subprocess.run([*command, str(tmp_path / "killed")], env=environment, check=True, capture_output=True)
    assert kills
    whole, killed = course(tmp_path / "whole"), course(tmp_path / "killed")
    assert [key for key in whole if whole[key] != killed[key]] == []
    network = load_network(next((tmp_path / "whole" / "models").glob("network_*.pt")))
    assert network.difference.base == XTBPotential().level_of_theory
