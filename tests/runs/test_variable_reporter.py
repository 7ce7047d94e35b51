from __future__ import annotations

import io

import numpy as np
import pytest

from qmmlmm.errors import NonFiniteError, OutputFileError, SettingError, TableError
from qmmlmm.geometry import Geometry
from qmmlmm.runs import RunDirectory, VariableReporter
from qmmlmm.runs.variable_reporter import read_variable_table
from qmmlmm.sampling import CoordinationNumber, Distance, Torsion

VARIABLES = {"gap": Distance(0, 1), "turn": Torsion(0, 1, 2, 3), "near": CoordinationNumber([0], [1, 2], 0.4)}


def test_a_row_has_the_values_with_their_units_in_the_header(argon, tmp_path):
    path = tmp_path / "variables.csv"
    simulation = argon.simulation()
    reporter = VariableReporter(path, 2, {**VARIABLES, "own, x": lambda geometry: geometry.positions[0, 0]})
    simulation.reporters.append(reporter)
    simulation.step(6)
    reporter.close()
    assert path.read_text().splitlines()[0] == '#"Step","Time (ps)","gap (nm)","turn (rad)","near","own, x"'
    steps, values = read_variable_table(path)
    assert steps.tolist() == [2, 4, 6]
    geometry = Geometry.from_context(simulation.context)
    assert values["turn (rad)"][-1] == pytest.approx(VARIABLES["turn"](geometry), abs=1e-12)
    assert values["gap (nm)"][-1] == pytest.approx(VARIABLES["gap"](geometry), abs=1e-12)
    assert len(set(values["own, x"])) == 3


def test_a_killed_run_continues_the_table_from_its_checkpoint(argon, tmp_path):
    """Rows after the checkpoint and a line that was cut short go, and are written again as they were."""
    whole, path = tmp_path / "whole.csv", tmp_path / "run.csv"

    def run(table, directory, steps, resume):
        simulation = argon.simulation()
        with RunDirectory(tmp_path / directory, argon, resume=resume) as folder:
            done = folder.resume(simulation) if resume else 0
            simulation.reporters.append(VariableReporter(table, 2, VARIABLES, append=resume))
            folder.attach(simulation, trajectory_interval=10, energy_interval=10, checkpoint_interval=4, total_steps=12)
            folder.run(simulation, steps - done)
            simulation.reporters[0].close()

    run(whole, "whole", 12, False)
    run(path, "run", 8, False)
    lost = path.read_text() + "10,0.02,9.9,9.9,9.9\n12,0.0"
    path.write_text(lost)
    run(path, "run", 12, True)
    assert path.read_text() == whole.read_text()


def test_a_checkpoint_never_is_ahead_of_the_table(argon, tmp_path, monkeypatch):
    """OpenMM groups reporters by whether they ask for positions in one box, and calls one group after the other."""
    path, last, synced = tmp_path / "run" / "gaps.csv", [], set()
    monkeypatch.setattr("qmmlmm.runs.output_files.sync_file", lambda file: synced.add(file.name))
    save = RunDirectory._save_files

    def saved(folder, simulation):
        if simulation.currentStep:
            last.append((simulation.currentStep, read_variable_table(path)[0][-1]))
        save(folder, simulation)

    monkeypatch.setattr(RunDirectory, "_save_files", saved)
    simulation = argon.simulation()
    assert simulation.system.usesPeriodicBoundaryConditions()
    with RunDirectory(tmp_path / "run", argon) as folder:
        simulation.reporters.append(VariableReporter(path, 2, VARIABLES))
        folder.attach(simulation, trajectory_interval=4, energy_interval=4, checkpoint_interval=6, total_steps=12)
        folder.run(simulation, 12)
    simulation.reporters[0].close()
    assert last == [(6, 6), (12, 12)]
    assert synced == {"gaps.csv", "energies.csv", "trajectory.dcd"}


def test_append_creates_a_table_that_is_not_there_and_starts_one_whose_header_was_cut(argon, tmp_path):
    for k, content in enumerate((None, '#"Step","Ti')):
        path = tmp_path / f"{k}.csv"
        if content:
            path.write_text(content)
        simulation = argon.simulation()
        simulation.reporters.append(VariableReporter(path, 1, VARIABLES, append=True))
        simulation.step(2)
        simulation.reporters[0].close()
        assert read_variable_table(path)[0].tolist() == [1, 2]


def test_other_columns_are_refused(argon, tmp_path):
    path = tmp_path / "variables.csv"
    path.write_text('#"Step","Time (ps)","gap (nm)"\n')
    simulation = argon.simulation()
    simulation.reporters.append(VariableReporter(path, 1, VARIABLES, append=True))
    with pytest.raises(OutputFileError, match=r"has the columns Step, Time .ps., gap .nm.; this simulation gives"):
        simulation.step(1)
    simulation.reporters[0].close()


def test_a_value_that_is_no_number_stops_the_run(argon):
    simulation = argon.simulation()
    simulation.reporters.append(VariableReporter(io.StringIO(), 1, {"wrong": lambda geometry: np.nan}))
    with pytest.raises(NonFiniteError, match="not a finite number at step 1: wrong"):
        simulation.step(1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((io.StringIO(), 0, VARIABLES), SettingError, "report_interval is a number of steps"),
        ((io.StringIO(), 1, {}), SettingError, "variables have one name"),
        ((io.StringIO(), 1, {"x": 5}), SettingError, "variables: 'x' is a function of a Geometry"),
        ((io.StringIO(), 1, {"a\nb": Distance(0, 1)}), SettingError, "a name of variables has a line break"),
        ((io.StringIO(), 1, VARIABLES, 1), SettingError, "append is True or False"),
        ((io.StringIO(), 1, VARIABLES, True), OutputFileError, "given as a path"),
        ((5, 1, VARIABLES), SettingError, "file is a path or an open text file"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        VariableReporter(*arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [("my notes\n", "is no table of variables"), ('#"Step","Time (ps)","x"\n1,0.1,abc\n', "has a damaged row")],
)
def test_a_file_that_is_no_table_of_variables_is_refused(tmp_path, content, message):
    path = tmp_path / "notes.csv"
    path.write_text(content)
    with pytest.raises(TableError, match=message):
        read_variable_table(path)
    with pytest.raises(TableError, match="can be read"):
        read_variable_table(tmp_path / "none.csv")
