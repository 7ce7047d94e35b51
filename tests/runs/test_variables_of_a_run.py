"""Variables in a run directory: how their table continues, and what cannot be continued."""

from __future__ import annotations

import pytest

from qmmlmm.errors import OutputFileError
from qmmlmm.runs import RunDirectory
from tests.runs.argon import Argon

INTERVALS = {"trajectory_interval": 4, "energy_interval": 2, "checkpoint_interval": 4, "total_steps": 8}


def first_x(geometry):
    return geometry.positions[0, 0]


def edge(geometry):
    return geometry.box[0, 0]


VARIABLES = {"x (nm)": first_x, 'edge, "a" (nm)': edge}


def rows(path):
    return path.read_text().splitlines()


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
    with pytest.raises(OutputFileError, match="has the columns .*this simulation gives"):
        run(tmp_path / "other", 8, {"y (nm)": first_x}, resume=True)


def test_a_table_of_somebody_else_is_not_overwritten(tmp_path):
    (tmp_path / "variables.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"holds variables.csv but no run.json"):
        RunDirectory(tmp_path, Argon())
