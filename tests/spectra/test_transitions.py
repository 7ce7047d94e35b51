from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from pyscf import gto, scf, tdscf

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.errors import EvaluationError, TransitionsError
from qmmlmm.geometry import Geometry
from qmmlmm.qm import TDA, PySCFPotential
from qmmlmm.qm.states.response_states import ResponseStates
from qmmlmm.spectra.transitions import compute_transitions
from qmmlmm.units import HARTREE_IN_EV
from systems.methanimine_water import EDGE, METHANIMINE, SOLUTE, build

SAME = 1e-5  # eV; the amplitudes are converged to residuals of 1e-6 hartree


def term_of(potential):
    topology, system, positions = build()
    region = Region("imine", SOLUTE, charge=0)
    mixed = create_mixed_system(topology, system, Hamiltonian([Term(potential, region, embedding="electrostatic")]))
    return mixed.evaluated_term("imine/QM"), positions


@pytest.fixture
def imine():
    """A term with three states, and three snapshots in nm."""
    term, positions = term_of(PySCFPotential("hf", "sto-3g", excited=TDA(3)))
    rng = np.random.default_rng(4)
    box = EDGE * np.eye(3)
    return term, [Geometry(positions + 0.003 * rng.standard_normal(positions.shape), box) for _ in range(3)]


def test_excitations_in_vacuum_are_those_of_pyscf(imine):
    term, frames = imine
    found = compute_transitions(term, frames[:1])
    atoms = [(atom[0], 10.0 * frames[0].positions[k]) for k, atom in enumerate(METHANIMINE)]
    mean_field = scf.RHF(gto.M(atom=atoms, basis="sto-3g", verbose=0)).run(conv_tol=1e-11)
    mean_field._chkfile.close()
    reference = tdscf.TDA(mean_field).set(nstates=2, conv_tol=1e-8).run()
    np.testing.assert_allclose(found.vacuum_energies[0], reference.e * HARTREE_IN_EV, rtol=0, atol=SAME)
    np.testing.assert_allclose(found.vacuum_strengths[0], reference.oscillator_strength(), rtol=0, atol=1e-4)
    assert abs(found.shifts()[0]).max() > 0.01


def test_excitations_in_the_surroundings_are_those_of_the_term(imine):
    term, frames = imine
    found = compute_transitions(term, frames[1:2], vacuum=False)
    assert found.vacuum_energies is None
    term.compute(frames[1])
    energies = term.last.states.state_energies
    np.testing.assert_allclose(found.energies[0], (energies[1:] - energies[0]) * HARTREE_IN_EV, atol=SAME)
    np.testing.assert_allclose(found.strengths[0], term.last.states.oscillator_strengths[1:], atol=1e-4)


def test_energies_that_are_no_numbers_are_refused(imine, monkeypatch, tmp_path):
    term, frames = imine
    monkeypatch.chdir(tmp_path)  # where the failed geometry goes
    solved = ResponseStates.excitations

    def spoilt(self, reference):
        return replace(solved(self, reference), state_energies=np.array([-1.0, np.nan, 0.0]))

    monkeypatch.setattr(ResponseStates, "excitations", spoilt)
    with pytest.raises(EvaluationError, match="snapshot 0 .*not finite"):
        compute_transitions(term, frames[:1])


def test_without_embedding_the_surroundings_shift_nothing():
    topology, system, positions = build()
    potential = PySCFPotential("hf", "sto-3g", excited=TDA(2))
    region = Region("imine", SOLUTE, charge=0)
    mixed = create_mixed_system(topology, system, Hamiltonian([Term(potential, region, embedding="mechanical")]))
    found = compute_transitions(mixed.evaluated_term("imine/QM"), [Geometry(positions, EDGE * np.eye(3))])
    assert found.energies.shape == (1, 1)
    assert found.shifts()[0, 0] == 0.0
    assert found.energies[0, 0] > 1.0


def test_an_executor_gives_the_same(imine):
    term, frames = imine
    counts = []
    expected = compute_transitions(term, frames[:2])
    with ThreadPoolExecutor(1) as executor:
        found = compute_transitions(term, frames[:2], executor=executor, progress=counts.append)
    np.testing.assert_allclose(found.energies, expected.energies, atol=SAME)
    assert counts == [1, 2]


def test_a_record_is_continued_and_a_half_written_frame_made_again(tmp_path, imine):
    term, frames = imine
    record = tmp_path / "transitions.csv"
    expected = compute_transitions(term, frames, record=record)
    whole = record.read_text(encoding="utf-8")
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 2 + 3 * 4  # frames times vacuum and surroundings times states
    record.write_text("".join(lines[:7]) + lines[7][:9], encoding="utf-8")

    counts = []
    again = compute_transitions(term, frames, record=record, progress=counts.append)
    assert counts == [2, 3]  # the first frame was there
    np.testing.assert_allclose(again.energies, expected.energies, atol=SAME)
    np.testing.assert_allclose(again.vacuum_strengths, expected.vacuum_strengths, atol=1e-4)
    compute_transitions(term, frames, record=record, progress=counts.append)
    assert counts == [2, 3]  # nothing left to do
    assert len(record.read_text(encoding="utf-8").splitlines()) == len(lines)


def test_a_record_serves_more_snapshots_and_one_that_was_hardly_begun_is_begun_again(tmp_path, imine):
    term, frames = imine
    record = tmp_path / "transitions.csv"
    counts = []
    first = compute_transitions(term, frames[1:2], record=record, vacuum=False)
    both = compute_transitions(term, frames[:2], record=record, vacuum=False, progress=counts.append)
    assert counts == [2]  # one was there
    np.testing.assert_allclose(both.energies[1], first.energies[0], rtol=1e-9)
    record.write_text(record.read_text(encoding="utf-8")[:30], encoding="utf-8")
    compute_transitions(term, frames[:1], record=record, vacuum=False, progress=counts.append)
    assert counts == [2, 1]


def test_a_record_of_something_else_is_refused(tmp_path, imine):
    term, frames = imine
    record = tmp_path / "transitions.csv"
    compute_transitions(term, frames[:1], record=record, vacuum=False)
    before = record.read_text(encoding="utf-8")
    with pytest.raises(TransitionsError, match="another method"):
        compute_transitions(term, frames[:1], record=record, vacuum=True)
    other, _ = term_of(PySCFPotential("hf", "3-21g", excited=TDA(3)))
    with pytest.raises(TransitionsError, match="another method"):
        compute_transitions(other, frames[:1], record=record, vacuum=False)
    assert record.read_text(encoding="utf-8") == before


def test_a_potential_without_excited_states_is_refused(imine):
    _, frames = imine
    term, _ = term_of(PySCFPotential("hf", "sto-3g"))
    with pytest.raises(TransitionsError, match=r"excited=TDA\(n_states=3\)"):
        compute_transitions(term, frames[:1])


def test_no_snapshots_are_an_error(imine):
    with pytest.raises(TransitionsError, match="no snapshots"):
        compute_transitions(imine[0], [])
