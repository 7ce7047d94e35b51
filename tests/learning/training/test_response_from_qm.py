"""Response of a molecule from labels that one call computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qmmlmm import MLPotential, PySCFPotential, Region
from qmmlmm.coupling import RegionSpecification
from qmmlmm.coupling.potential import Evaluator
from qmmlmm.embedding.module_evaluator import ModuleEvaluator
from qmmlmm.errors import DataSetError, EvaluationError, SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.learning import append_frames, fit_response, read_frames, response_from_qm
from qmmlmm.learning.labels.frame_field import field_of_frame
from qmmlmm.ml import EmbeddedPotential, FixedResponse
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL
from tests.learning.loop.water_case import springs, waters
from tests.toy_potentials import ELEMENTS, Springs
from tests.toy_systems import molecule_among_ions

WATER = Region("water", [0, 1, 2])
FITTED = 1.0  # kJ/mol of interactions of some 50; what the regularisation leaves


class Counted(EmbeddedPotential):
    """A stand-in for QM: springs and a response, which counts its labels and fails at one of them."""

    calls = 0
    fails_at = 0

    def create_evaluator(self, specification):
        return CountedEvaluator(super().create_evaluator(specification))


class CountedEvaluator(Evaluator):
    """Counts evaluations in the field."""

    def __init__(self, evaluator) -> None:
        self.evaluator = evaluator

    def evaluate(self, geometry, field):
        if field is not None:
            Counted.calls += 1
            if Counted.calls == Counted.fails_at:
                raise EvaluationError("the SCF did not converge")
        return self.evaluator.evaluate(geometry, field)


@pytest.fixture
def qm(monkeypatch):
    monkeypatch.setattr(Counted, "calls", 0)
    monkeypatch.setattr(Counted, "fails_at", 0)
    empty, rng = FixedResponse([8, 1, 1], [(0, 1), (0, 2)]), np.random.default_rng(4)
    distances, coefficients = 2.0 + np.zeros(empty.n_classes), 0.2 * rng.normal(size=empty.n_coefficients)
    true = FixedResponse([8, 1, 1], empty.bonds, 0, distances, coefficients)
    return Counted(MLPotential(Springs(0.01), elements=ELEMENTS), true)


def geometries(count):
    positions, rng = waters()[2], np.random.default_rng(3)
    return [Geometry(positions + 0.006 * rng.normal(size=positions.shape)) for _ in range(count)]


def run(qm, positions=None, **options):
    topology, system, start = waters()
    options = {"base": springs(), "steps": 20, "platform": "Reference", **options}
    return response_from_qm(topology, system, WATER, qm, start if positions is None else positions, **options)


def interactions(response, frames):
    """Return interaction energies of the response and of labels, kJ/mol."""
    evaluator = ModuleEvaluator(RegionSpecification("a", frames[0].atomic_numbers, 0, 1), response)
    found = [evaluator.energy(Geometry(frame.positions), field_of_frame(frame)) for frame in frames]
    labels = [frame.energy - frame.vacuum_energy for frame in frames]
    return HARTREE_IN_KJ_PER_MOL * np.array(found), HARTREE_IN_KJ_PER_MOL * np.array(labels)


def test_a_run_of_the_base_gives_labels_and_the_response(qm, tmp_path):
    path = tmp_path / "labels.xyz"
    response = run(qm, path=path, n_labels=12)
    frames = read_frames(path)
    assert Counted.calls == len(frames) == 12
    assert response.fingerprint() == fit_response(frames).fingerprint()
    found, wanted = interactions(response, frames)
    assert np.abs(found - wanted).mean() < FITTED
    assert np.ptp([np.linalg.norm(frame.positions[1] - frame.positions[0]) for frame in frames]) > 0.02


@pytest.mark.slow
def test_a_run_is_repeated_with_its_seed_only(qm):
    fingerprints = [run(qm, n_labels=6, seed=seed).fingerprint() for seed in (1, 1, 2)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.slow
def test_hartree_fock_labels_give_the_interaction_of_water(tmp_path):
    path = tmp_path / "labels.xyz"
    response = run(PySCFPotential("hf", "sto-3g"), path=path, n_labels=8)
    found, labels = interactions(response, read_frames(path))
    assert np.abs(labels).mean() > 10.0 * FITTED
    assert np.abs(found - labels).mean() < FITTED


def test_given_geometries_are_labelled_without_a_run(qm):
    response = run(qm, geometries(7), base=None)
    assert Counted.calls == 7
    assert response.atomic_numbers == [8, 1, 1]


def test_after_a_failure_finished_labels_are_kept(qm, tmp_path):
    path, given = tmp_path / "labels.xyz", geometries(8)
    Counted.fails_at = 4
    with pytest.raises(EvaluationError, match="the SCF did not converge"):
        run(qm, given, base=None, path=path)
    assert len(read_frames(path)) == 3
    Counted.calls, Counted.fails_at = 0, 0
    response = run(qm, given, base=None, path=path)
    assert Counted.calls == 5
    whole = run(qm, given, base=None, path=tmp_path / "whole.xyz")
    assert whole.fingerprint() == response.fingerprint()


def test_a_run_adds_the_labels_that_are_missing(qm, tmp_path):
    path = tmp_path / "labels.xyz"
    run(qm, path=path, n_labels=6)
    run(qm, path=path, n_labels=8)
    frames = read_frames(path)
    assert Counted.calls == len(frames) == len({frame.name for frame in frames}) == 8


def test_progress_is_shown_if_wanted(qm, capsys):
    run(qm, geometries(6), base=None, progress=True)
    assert "QM labels: 100%" in capsys.readouterr().err
    run(qm, geometries(6), base=None, progress=False)
    assert not capsys.readouterr().err


def test_what_cannot_be_labelled_is_refused_before_the_first_label(qm, tmp_path):
    path = tmp_path / "labels.xyz"
    run(qm, geometries(6), base=None, path=path)
    frame = read_frames(path)[0]
    Counted.calls = 0
    append_frames(tmp_path / "other.xyz", [replace(frame, method="hf/sto-3g")])
    append_frames(tmp_path / "ion.xyz", [replace(frame, charge=2)])
    for name in ("other.xyz", "ion.xyz"):
        with pytest.raises(DataSetError, match="is of another method or region"):
            run(qm, path=tmp_path / name)
    with pytest.raises(DataSetError, match=r"ends in \.xyz or \.extxyz"):
        run(qm, path=tmp_path / "labels.json")
    with pytest.raises(DataSetError, match="its folder must be there"):
        run(qm, path=tmp_path / "none" / "labels.xyz")
    with pytest.raises(SettingError, match="one geometry is the start of a run; give its potential"):
        run(qm, base=None)
    with pytest.raises(SettingError, match="5 geometries are too few, 6 are needed"):
        run(qm, geometries(5))
    with pytest.raises(SettingError, match="positions, geometry 5 has the shape"):
        run(qm, [*geometries(5), Geometry(np.zeros((3, 3)))])
    with pytest.raises(SettingError, match=r"n_labels is .* got 5"):
        run(qm, n_labels=5)
    with pytest.raises(SettingError, match="there is no 'GPU'; OpenMM has Reference"):
        run(qm, platform="GPU")
    case = molecule_among_ions()
    with pytest.raises(SettingError, match="positions: the System is periodic, and the Geometry has no box"):
        response_from_qm(case.topology, case.system, WATER, qm, Geometry(case.positions), base=springs())
    assert Counted.calls == 0
