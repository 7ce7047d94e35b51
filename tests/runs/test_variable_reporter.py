"""The table of variables: its values, how it continues, and what cannot be continued."""

from __future__ import annotations

import pytest
from openmm import unit

from qmmlmm.errors import NonFiniteError, OutputFileError, SettingError
from qmmlmm.runs import RunDirectory, VariableReporter
from tests.runs.argon import Argon

INTERVALS = {"trajectory_interval": 4, "energy_interval": 2, "checkpoint_interval": 4, "total_steps": 8}


def first_x(geometry):
    return geometry.positions[0, 0]


def edge(geometry):
    return geometry.box[0, 0]


VARIABLES = {"x (nm)": first_x, 'edge, "a" (nm)': edge}


def rows(path):
    return path.read_text().splitlines()


def test_the_table_has_the_values_at_the_steps(tmp_path):
    simulation = Argon().simulation()
    reporter = VariableReporter(tmp_path / "v.csv", 2, VARIABLES)
    simulation.reporters.append(reporter)
    expected = []
    for _ in range(2):
        simulation.step(2)
        state = simulation.context.getState(positions=True)
        position = state.getPositions(asNumpy=True)[0, 0].value_in_unit(unit.nanometer)
        expected.append(f"{simulation.currentStep},{state.getTime()._value},{position},")
    reporter.close()
    header, *found = rows(tmp_path / "v.csv")
    assert header == '#"Step","Time (ps)","x (nm)","edge, ""a"" (nm)"'
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))


def test_a_run_directory_continues_the_table_at_its_checkpoint(tmp_path):
    def run(path, steps, variables=VARIABLES, resume=False, fail_at=None):
        argon = Argon()
        simulation = argon.simulation(ready=not resume)

        def failing(geometry):
            if simulation.currentStep == fail_at:
                raise KeyboardInterrupt
            return geometry.positions[0, 0]

        with RunDirectory(path, argon, resume=resume) as directory:
            done = directory.resume(simulation) if resume else 0
            directory.attach(simulation, **INTERVALS, variables={**variables, "x (nm)": failing})
            directory.run(simulation, steps - done)

    run(tmp_path / "whole", 8)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 8, fail_at=8)
    # A kill may leave half a line.
    with (tmp_path / "stopped" / "variables.csv").open("a") as file:
        file.write("8,0.0")
    run(tmp_path / "stopped", 8, resume=True)
    assert rows(tmp_path / "stopped" / "variables.csv") == rows(tmp_path / "whole" / "variables.csv")
    assert len(rows(tmp_path / "whole" / "variables.csv")) == 5
    run(tmp_path / "other", 4)
    with pytest.raises(OutputFileError, match="has the columns .*continue with the same variables"):
        run(tmp_path / "other", 8, {"y (nm)": first_x}, resume=True)


def test_a_table_of_somebody_else_is_not_overwritten(tmp_path):
    (tmp_path / "variables.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"holds variables.csv but no run.json"):
        RunDirectory(tmp_path, Argon())


def test_a_value_that_is_not_finite_is_an_error_that_names_it(tmp_path):
    simulation = Argon().simulation()
    reporter = VariableReporter(tmp_path / "v.csv", 1, {"wrong": lambda geometry: float("nan")})
    simulation.reporters.append(reporter)
    with pytest.raises(NonFiniteError, match="not a finite number at step 1: wrong"):
        simulation.step(1)
    reporter.close()
    assert rows(tmp_path / "v.csv") == []


@pytest.mark.parametrize("variables", [5, {"x": 5}, {1: first_x}])
def test_what_is_no_function_of_a_geometry_is_refused(tmp_path, variables):
    with pytest.raises(SettingError, match="variable"):
        VariableReporter(tmp_path / "v.csv", 1, variables)
