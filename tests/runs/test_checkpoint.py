from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import numpy as np
import openmm
import pytest

from qmmlmm.errors import NonFiniteError, QmmlmmWarning, RunDirectoryError
from qmmlmm.runs.checkpoint import forget_older, load_checkpoint, load_memory, save_checkpoint
from tests.contexts import make_context


def positions_of(simulation):
    return np.array(simulation.context.getState(positions=True).getPositions(asNumpy=True))


@pytest.fixture
def saved(argon, tmp_path):
    """A folder with checkpoints at steps 10 and 20."""
    simulation = argon.simulation()
    for _ in range(2):
        simulation.step(10)
        save_checkpoint(simulation, tmp_path)
    return simulation, tmp_path


def test_a_checkpoint_continues_the_very_same_trajectory(saved, argon):
    simulation, folder = saved
    simulation.step(15)
    # Made after those steps: the Reference platform has one random generator for all Contexts of a process.
    again = argon.simulation(ready=False)
    assert load_checkpoint(again, folder) == "checkpoint.chk"
    assert again.currentStep == 20
    again.step(15)
    np.testing.assert_array_equal(positions_of(simulation), positions_of(again))


def test_openmm_itself_can_load_the_checkpoint_and_the_state(saved, argon):
    simulation, folder = saved
    again = argon.simulation(ready=False)
    again.loadCheckpoint(str(folder / "checkpoint.chk"))
    np.testing.assert_array_equal(positions_of(simulation), positions_of(again))
    again.loadState(str(folder / "state.xml"))
    np.testing.assert_array_equal(positions_of(simulation), positions_of(again))
    assert again.currentStep == 20


def test_progress_names_step_and_time(saved):
    _, folder = saved
    progress = json.loads((folder / "progress.json").read_text())
    assert progress["step"] == 20
    assert progress["time (ps)"] == pytest.approx(0.08)


def test_openmm_loads_a_checkpoint_that_was_cut_short_without_an_error(saved, argon):
    # Why there is a checksum. If this fails, OpenMM has become stricter and the checksum can go.
    _, folder = saved
    content = (folder / "checkpoint.chk").read_bytes()
    again = argon.simulation(ready=False)
    again.context.loadCheckpoint(content[: len(content) // 2])
    assert again.currentStep == 20


@pytest.mark.parametrize("damage", ["short", "bit"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(saved, argon, damage):
    _, folder = saved
    path = folder / "checkpoint.chk"
    content = bytearray(path.read_bytes())
    if damage == "short":
        del content[len(content) // 2 :]
    else:
        content[1000] ^= 1
    path.write_bytes(content)
    again = argon.simulation(ready=False)
    with pytest.warns(QmmlmmWarning, match=r"checkpoint.chk.previous at step 10, because .*damaged"):
        assert load_checkpoint(again, folder) == "checkpoint.chk.previous"


def test_a_kill_while_saving_leaves_a_checkpoint_that_loads_in_silence(saved, argon):
    _, folder = saved
    (folder / "checkpoint.chk").unlink()
    again = argon.simulation(ready=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(again, folder) == "checkpoint.chk.previous"
    assert again.currentStep == 10


def test_on_another_platform_the_state_is_used_with_a_warning(saved, argon):
    simulation, folder = saved
    again = argon.simulation("CPU", ready=False)
    with pytest.warns(QmmlmmWarning, match=r"state.xml at step 20, because .*different Platform"):
        assert load_checkpoint(again, folder) == "state.xml"
    np.testing.assert_array_equal(positions_of(simulation), positions_of(again))


def test_without_any_checkpoint_the_failure_is_named(saved, argon):
    _, folder = saved
    forget_older(folder)
    for name in ("checkpoint.chk", "state.xml"):
        (folder / name).write_text("nonsense")
    with pytest.raises(RunDirectoryError, match=r"no checkpoint that can be loaded: checkpoint.chk: .*damaged"):
        load_checkpoint(argon.simulation(ready=False), folder)


def test_positions_that_are_not_finite_are_never_saved(saved):
    simulation, folder = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    positions = positions_of(simulation)
    positions[3, 1] = np.nan
    simulation.context.setPositions(positions)
    with pytest.raises(NonFiniteError, match=r"positions of atoms 3 are not finite at step 20"):
        save_checkpoint(simulation, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_state_of_another_system_is_refused(saved):
    _, folder = saved
    system = openmm.System()
    system.addParticle(1.0)
    other = SimpleNamespace(context=make_context(system, np.zeros((1, 3))), currentStep=0)
    with pytest.raises(RunDirectoryError, match="no checkpoint that can be loaded"):
        load_checkpoint(other, folder)


def memory_of(step):
    """Two terms with names that are no names of files."""
    return {"dye/QM": {"orbitals": np.full((2, 3), step), "characters": np.array([0, 2, 1])}, "../x": {"a": np.eye(2)}}


@pytest.fixture
def with_memory(argon, tmp_path):
    """A folder with checkpoints and the memory of terms at steps 10 and 20."""
    simulation = argon.simulation()
    for step in (10, 20):
        simulation.step(10)
        save_checkpoint(simulation, tmp_path, memory_of(step))
    return tmp_path


def test_memory_comes_back_as_it_was(with_memory):
    found = load_memory(with_memory, 20)
    assert list(found) == ["dye/QM", "../x"]
    for name, arrays in memory_of(20).items():
        assert found[name].keys() == arrays.keys()
        for key, array in arrays.items():
            np.testing.assert_array_equal(found[name][key], array)


def test_whichever_checkpoint_a_kill_leaves_the_memory_of_its_step_is_there_and_stays(with_memory, argon):
    # Killed after the memory of step 20 was written, and before the checkpoint.
    (with_memory / "checkpoint.chk.previous").replace(with_memory / "checkpoint.chk")
    simulation = argon.simulation(ready=False)
    load_checkpoint(simulation, with_memory)
    assert load_memory(with_memory, simulation.currentStep)["dye/QM"]["orbitals"][0, 0] == 10
    # Killed once more at the next checkpoint.
    simulation.step(5)
    save_checkpoint(simulation, with_memory, memory_of(15))
    assert load_memory(with_memory, 10)["dye/QM"]["orbitals"][0, 0] == 10


def test_memory_of_another_step_and_a_damaged_one_are_left_with_a_warning(with_memory):
    path = with_memory / "memory.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.warns(QmmlmmWarning, match=r"no memory of step 20 \(.*damaged.*previous is of step 10\)"):
        assert load_memory(with_memory, 20) == {}


def test_without_memory_no_file_is_written_and_none_is_missed(saved):
    _, folder = saved
    assert not (folder / "memory.npz").exists()
    assert load_memory(folder, 20) == {}
