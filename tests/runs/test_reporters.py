from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.errors import NonFiniteError, OutputFileError
from qmmlmm.runs.reporters import ProgressReporter, TermEnergyReporter, cut_energies
from tests.runs.argon import Argon

# Terms and total are summed in another order, both in double precision.
SUM_TOLERANCE = 1e-9  # kJ/mol


def table(path: Path) -> tuple[list[str], np.ndarray]:
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    rows[0][0] = rows[0][0].removeprefix('#"').rstrip('"')
    return rows[0], np.array(rows[1:], dtype=float)


def run_with_reporter(argon, path: Path, steps: int, interval: int = 2):
    simulation = argon.simulation()
    reporter = TermEnergyReporter(path, interval, argon)
    simulation.reporters.append(reporter)
    simulation.step(steps)
    return simulation, reporter


def test_each_row_holds_the_terms_that_sum_to_the_potential_energy(argon, tmp_path):
    path = tmp_path / "energies.csv"
    _, reporter = run_with_reporter(argon, path, 7)
    reporter.close()
    names, values = table(path)
    assert names == [
        "Step",
        "Time (ps)",
        "MM (kJ/mol)",
        "cluster, left/ML (kJ/mol)",
        "Potential Energy (kJ/mol)",
        "Kinetic Energy (kJ/mol)",
        "Temperature (K)",
        "Box Volume (nm^3)",
    ]
    assert path.read_text().startswith('#"Step","Time (ps)","MM (kJ/mol)",')
    assert values[:, 0].tolist() == [2, 4, 6]
    np.testing.assert_allclose(values[:, 2] + values[:, 3], values[:, 4], rtol=0, atol=SUM_TOLERANCE)
    assert len(set(values[:, 3])) == 3


def test_the_charges_are_checked_at_the_first_row_and_after_fifty_more(argon):
    simulation = argon.simulation()
    simulation.reporters.append(TermEnergyReporter(io.StringIO(), 1, argon))
    simulation.step(52)
    assert argon.checks == [True, *[False] * 49, True, False]


def test_temperature_and_volume_equal_those_of_openmms_own_reporter(argon, tmp_path):
    simulation = argon.simulation()
    ours = TermEnergyReporter(tmp_path / "ours.csv", 3, argon)
    simulation.reporters.append(ours)
    theirs = io.StringIO()
    simulation.reporters.append(
        app.StateDataReporter(theirs, 3, step=True, kineticEnergy=True, temperature=True, volume=True)
    )
    simulation.step(9)
    ours.close()
    rows = [line.split(",") for line in theirs.getvalue().splitlines()[1:]]
    np.testing.assert_array_equal(table(tmp_path / "ours.csv")[1][:, [0, 5, 6, 7]], np.array(rows, dtype=float))


def test_temperature_counts_degrees_of_freedom_for_an_integrator_without_a_thermometer(argon, tmp_path):
    argon.system.addForce(openmm.CMMotionRemover())
    argon.system.addConstraint(0, 1, 0.8)
    argon.system.setParticleMass(5, 0.0)
    simulation = app.Simulation(
        argon.topology,
        argon.system,
        openmm.CustomIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    simulation.context.setPositions(argon.positions())
    simulation.context.setVelocitiesToTemperature(90.0, 1)
    text = io.StringIO()
    simulation.reporters.append(TermEnergyReporter(text, 1, argon))
    simulation.step(1)
    kinetic, temperature = (float(x) for x in text.getvalue().splitlines()[1].split(",")[5:7])
    expected = (
        2
        * kinetic
        / ((3 * 26 - 1 - 3) * unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin))
    )
    assert temperature == pytest.approx(expected, rel=1e-12)


def test_a_system_without_a_box_has_no_volume_column(tmp_path):
    argon = Argon(periodic=False)
    _, reporter = run_with_reporter(argon, tmp_path / "energies.csv", 2)
    reporter.close()
    assert table(tmp_path / "energies.csv")[0][-1] == "Temperature (K)"


def test_a_row_is_on_disk_as_soon_as_it_is_reported(argon, tmp_path):
    path = tmp_path / "energies.csv"
    _, reporter = run_with_reporter(argon, path, 4)
    assert table(path)[1][:, 0].tolist() == [2, 4]
    reporter.close()


@pytest.mark.parametrize(("damage", "resumed_at"), [("", 5), ("10,0.04,-3.", 5), ("10", 9), ("9,0.03", 9), ("1", 9)])
def test_a_table_is_continued_without_rows_of_the_abandoned_future(argon, tmp_path, damage, resumed_at):
    path = tmp_path / "energies.csv"
    simulation, reporter = run_with_reporter(argon, path, 8)
    reporter.close()
    if damage:
        with open(path, "a") as file:
            file.write(damage)
    simulation.currentStep = resumed_at
    simulation.reporters[:] = [TermEnergyReporter(path, 2, argon, append=True)]
    simulation.step(10 - resumed_at)
    simulation.reporters[0].close()
    assert table(path)[1][:, 0].tolist() == [2, 4, 6, 8, 10]
    assert path.read_text().count("#") == 1


def test_a_table_that_was_cut_within_its_header_is_begun_anew(argon, tmp_path):
    path = tmp_path / "energies.csv"
    path.write_text('#"Step","Ti')
    simulation = argon.simulation()
    simulation.reporters.append(TermEnergyReporter(path, 1, argon, append=True))
    simulation.step(2)
    simulation.reporters[0].close()
    assert table(path)[1][:, 0].tolist() == [1, 2]


def test_a_table_of_other_terms_is_refused_and_left_as_it_is(argon, tmp_path):
    path = tmp_path / "energies.csv"
    simulation, reporter = run_with_reporter(argon, path, 4)
    reporter.close()
    before = path.read_bytes().replace(b"cluster, left/ML", b"cluster, left/QM")
    path.write_bytes(before)
    simulation.currentStep = 2
    simulation.reporters[:] = [TermEnergyReporter(path, 2, argon, append=True)]
    with pytest.raises(OutputFileError, match=r"cluster, left/QM.*this simulation gives.*cluster, left/ML"):
        simulation.step(1)
    simulation.reporters[0].close()
    assert path.read_bytes() == before


def test_a_file_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n")
    with pytest.raises(OutputFileError, match=r"no table of term energies.*'my notes'"):
        cut_energies(path, 3)


def test_a_damaged_row_is_named(argon, tmp_path):
    path = tmp_path / "energies.csv"
    _, reporter = run_with_reporter(argon, path, 6)
    reporter.close()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1] + "\0\0\0\n" + lines[3])
    with pytest.raises(OutputFileError, match=r"line 3 of .* is no row with a step"):
        cut_energies(path, 6)


def test_an_open_file_cannot_be_continued(argon):
    with pytest.raises(OutputFileError, match="given as a path"):
        TermEnergyReporter(io.StringIO(), 1, argon, append=True)


def test_a_nan_is_caught_with_its_term_and_no_row_is_written(argon, tmp_path):
    path = tmp_path / "energies.csv"
    simulation, reporter = run_with_reporter(argon, path, 2)
    simulation.context.setParameter("k", float("nan"))
    with pytest.raises(NonFiniteError, match="not a finite number at step 4: cluster, left/ML"):
        simulation.step(2)
    reporter.close()
    assert table(path)[1][:, 0].tolist() == [2]


def test_a_full_disk_reaches_the_user(argon):
    reporter = TermEnergyReporter("/dev/full", 1, argon)
    simulation = argon.simulation()
    simulation.reporters.append(reporter)
    with pytest.raises(OSError, match="No space left on device"):
        simulation.step(1)
    with pytest.raises(OSError, match="No space left on device"):
        reporter.close()


@pytest.mark.parametrize("interval", [0, -1, 2.0, True, "5"])
def test_an_interval_is_a_positive_integer(argon, interval):
    with pytest.raises(ValueError, match="report_interval is a number of steps"):
        TermEnergyReporter(io.StringIO(), interval, argon)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_speed_and_time_left_on_a_terminal(argon):
    screen = Terminal()
    simulation = argon.simulation()
    simulation.step(3)  # equilibration, not part of the run
    simulation.reporters.append(ProgressReporter(5, 20, first_step=3, file=screen))
    simulation.step(18)
    simulation.reporters[0].close()
    last = screen.getvalue().split("\r")[-1]
    assert "17/20" in last
    assert "ns/day" in last
    assert "ms/step" in last
    assert "left" in last
    assert last.endswith("\n")


def test_progress_of_a_resumed_run_begins_where_it_was_left(argon):
    screen = Terminal()
    simulation = argon.simulation()
    simulation.currentStep = 10
    simulation.reporters.append(ProgressReporter(5, 20, file=screen))
    simulation.step(10)
    assert "10/20" in screen.getvalue()
    assert "20/20" in screen.getvalue()
    assert screen.getvalue().endswith("\n")


def test_progress_is_silent_without_a_terminal(argon):
    text = io.StringIO()
    simulation = argon.simulation()
    simulation.reporters.append(ProgressReporter(1, 3, file=text))
    simulation.step(3)
    simulation.reporters[0].close()
    assert text.getvalue() == ""
