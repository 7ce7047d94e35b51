"""The report of a run: what it shows, when it is written, and that it never ends a run."""

from __future__ import annotations

import re

import numpy as np
import pytest
from openmm import unit

from qmmlmm.errors import PotentialError, QmmlmmWarning, RunDirectoryError
from qmmlmm.runs import RunDirectory
from qmmlmm.runs.report import report_writer
from tests.html_pages import Page
from tests.runs.argon import Argon, Failure

INTERVALS = {"trajectory_interval": 6, "energy_interval": 2, "checkpoint_interval": 10, "total_steps": 40}
UNCERTAINTY = np.array([3.0, 5.0])


class Corrected(Argon):
    """Argon with the names of a corrected region, and a committee."""

    def term_energies(self, context, *, check_charges=True):
        mm, region = super().term_energies(context, check_charges=check_charges).values()
        return {"MM": mm, "left/QM": 2.0 * region, "left/ML": region, "left/-ML": -region}

    def describe(self):
        terms = [
            {"name": f"left/{level}", "level": level.removeprefix("-"), "coefficient": sign, "potential": potential}
            for level, sign, potential in (
                ("QM", 1.0, "PySCFPotential('hf')"), ("ML", 1.0, "<model>"), ("-ML", -1.0, "<model>"),
            )
        ]  # fmt: skip
        region = {"name": "left", "atoms": [0, 1], "charge": -1, "multiplicity": 2, "link_bonds": []}
        return {"particles": 27, "regions": [region], "terms": terms}

    def summary(self):
        counts = {"evaluations": 20, "seconds": 0.5, "scf_results": 20, "scf_cycles": 90}
        return {"left/QM": {**counts, "scf_converged_from": {"last density": 20}, "scf_failed_from": {}}}

    def force_uncertainty(self, context, name):
        if name != "left/ML":
            raise PotentialError("no committee")
        return UNCERTAINTY * unit.kilojoule_per_mole / unit.nanometer


def run(mixed, folder, steps=40, **options):
    simulation = mixed.simulation()
    with RunDirectory(folder, mixed, seed=5, **options) as directory:
        directory.attach(simulation, **INTERVALS)
        directory.run(simulation, steps)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_a_report_shows_what_was_run_and_what_came_out(tmp_path):
    page = run(Corrected(), tmp_path / "my_run")
    for text in (
        "Run my_run 40 of 40 steps, complete.",
        "QM + left/QM PySCFPotential('hf')",
        "\N{MINUS SIGN} left/-ML <model>",
        "Region left",
        "2 atoms, charge -1, multiplicity 2",
        "Energy of each term",
        "Temperature",
        "left: QM \N{MINUS SIGN} ML",
        "Uncertainty of the committee",
        "cycles each",
        "4.50",
        "last density: 20",
        "left/QM 20 25 ms 0.5 s",
        "LangevinMiddleIntegrator",
        "run 5",
        "PySCF: Q. Sun et al.",
        "learned potential",
    ):
        assert text in page.text, text
    assert "GFN2" not in page.text


def test_a_report_is_one_file_that_loads_nothing(tmp_path):
    run(Corrected(), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|url\(|@import|<script", text)


def test_means_are_those_of_the_table(tmp_path):
    page = run(Corrected(), tmp_path)
    rows = np.loadtxt(tmp_path / "energies.csv", delimiter=",")
    assert f"left/QM {rows[:, 3].mean():,.2f} {rows[:, 3].std():.2f} {rows[-1, 3]:,.2f}" in page.text
    difference = rows[:, 3] + rows[:, 5]
    assert f"mean {difference.mean():,.2f} kJ/mol, standard deviation {difference.std():.2f} kJ/mol" in page.text


def test_a_report_is_written_at_checkpoints_while_the_run_goes_on(argon, tmp_path, monkeypatch):
    monkeypatch.setattr(report_writer, "LARGEST_SHARE", 1.0)
    written = []
    monkeypatch.setattr(
        report_writer, "write_run_report", lambda facts, topology, geometry: written.append(facts.steps)
    )
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as directory:
        directory.attach(simulation, **INTERVALS)
        directory.run(simulation, 25)
    assert written == [10, 20, 25]


def test_reports_at_checkpoints_take_a_small_share_of_the_time(argon, tmp_path, monkeypatch):
    monkeypatch.setattr(report_writer, "LARGEST_SHARE", 0.0)
    written = []
    monkeypatch.setattr(
        report_writer, "write_run_report", lambda facts, topology, geometry: written.append(facts.steps)
    )
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as directory:
        directory.attach(simulation, **INTERVALS)
        directory.run(simulation, 40)
    assert written == [10, 40]


def test_a_report_that_cannot_be_drawn_is_one_warning_and_the_run_goes_on(argon, tmp_path, monkeypatch):
    def failing(facts, topology, geometry):
        raise ZeroDivisionError("no axis")

    monkeypatch.setattr(report_writer, "LARGEST_SHARE", 1.0)
    monkeypatch.setattr(report_writer, "write_run_report", failing)
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as directory:
        directory.attach(simulation, **INTERVALS)
        with pytest.warns(
            QmmlmmWarning, match=r"the report .*report\.html cannot be written \(ZeroDivisionError: no axis\)"
        ) as found:
            directory.run(simulation, 40)
    assert len(found) == 1
    assert simulation.currentStep == 40
    assert not (tmp_path / "report.html").exists()


def test_a_run_that_failed_has_its_error_in_the_report(tmp_path):
    failure = Failure()
    argon = Argon(failure=failure)
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as directory:
        directory.attach(simulation, **INTERVALS)
        failure.fail_at = failure.calls + 15
        with pytest.raises(RuntimeError, match="did not converge"):
            directory.run(simulation, 40)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "stopped by an error" in page.text
    assert "the SCF did not converge" in page.text


def test_a_resumed_run_says_how_far_the_whole_run_is(argon, tmp_path):
    assert "25 of 40 steps, not complete" in run(argon, tmp_path, 25).text
    simulation = argon.simulation(ready=False)
    with RunDirectory(tmp_path, argon, seed=5, resume=True) as directory:
        directory.resume(simulation)
        directory.attach(simulation, **INTERVALS)
        directory.run(simulation, 15)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "40 of 40 steps, complete" in page.text
    assert "for 15 steps" in page.text


def test_the_report_says_how_to_continue(tmp_path):
    assert "RunDirectory('script', mixed, resume=True)" in run(Argon(), tmp_path / "script").text
    page = run(Argon(), tmp_path / "command", continue_with="qmmlmm run run.toml")
    assert "qmmlmm run run.toml" in page.text
    assert "resume=True" not in page.text


@pytest.mark.parametrize("wrong", [3, "", b"x"])
def test_what_continues_a_run_is_a_text(argon, tmp_path, wrong):
    with pytest.raises(RunDirectoryError, match="continue_with"):
        RunDirectory(tmp_path, argon, continue_with=wrong)


def test_a_model_without_members_has_no_uncertainty(tmp_path):
    mixed = Corrected()
    mixed.force_uncertainty = lambda context, name: (_ for _ in ()).throw(PotentialError("no committee"))
    assert "Uncertainty" not in run(mixed, tmp_path).text
