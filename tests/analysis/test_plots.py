from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from openmm import unit

from qmmlmm.analysis.plots import plot_difference, plot_term_energies, save_run_figure
from qmmlmm.analysis.tables import EnergyTable
from qmmlmm.errors import TableError


def table(n=30, *, core="ligand", terms=None):
    generator = np.random.default_rng(3)
    energies = unit.kilojoule_per_mole
    ml = -813000.0 + generator.normal(0.0, 18.0, n)
    core_ml = ml if core == "ligand" else ml / 2
    values = {
        "MM": -301000.0 + generator.normal(0.0, 300.0, n),
        "ligand/ML": ml,
        f"{core}/QM": core_ml - 10.0 + generator.normal(0.0, 3.0, n),
        f"{core}/-ML": -core_ml,
    }
    values = {name: values[name] for name in (terms or values)}
    return EnergyTable(
        steps=np.arange(n),
        time=0.01 * np.arange(n) * unit.picosecond,
        terms={name: value * energies for name, value in values.items()},
        potential_energy=np.sum(list(values.values()), axis=0) * energies,
        kinetic_energy=np.ones(n) * energies,
        temperature=np.full(n, 300.0) * unit.kelvin,
        volume=None,
    )


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_energies_of_all_levels_are_drawn_around_their_means_with_units():
    ax = plot_term_energies(table())
    (right,) = [other for other in ax.figure.axes if other is not ax]
    assert "(kJ/mol)" in ax.get_ylabel()
    assert "(kJ/mol)" in right.get_ylabel()
    assert ax.get_xlabel() == "time (ps)"
    assert "single run" in ax.get_title(loc="left")
    for line in (*ax.get_lines(), *right.get_lines()):
        assert np.mean(line.get_ydata()) == pytest.approx(0.0, abs=1e-6)
    assert sum(ax.get_ylim()) == pytest.approx(0.0)
    assert sum(right.get_ylim()) == pytest.approx(0.0)


def test_the_legend_names_the_mean_of_each_level():
    run = table()
    mean = run.terms["MM"].value_in_unit(unit.kilojoule_per_mole).mean()
    assert labels(plot_term_energies(run))[0] == f"MM, mean {mean:,.1f} kJ/mol"


def test_a_subtracted_term_is_drawn_unless_it_repeats_an_added_one():
    assert len(labels(plot_term_energies(table()))) == 3
    names = [label.split(",")[0] for label in labels(plot_term_energies(table(core="core")))]
    assert names == ["MM", "ligand/ML", "core/QM", "core/ML (subtracted)"]


def test_a_run_of_one_level_needs_one_axis():
    ax = plot_term_energies(table(terms=["MM"]))
    assert ax.figure.axes == [ax]
    ax = plot_term_energies(table(terms=["ligand/ML"]))
    assert ax.figure.axes == [ax]


def test_no_two_curves_of_several_regions_share_a_colour():
    run = table()
    terms = {f"{region}/{level}": run.terms["ligand/ML"] for region in "abc" for level in ("ML", "QM")}
    run = EnergyTable(run.steps, run.time, terms, *3 * [run.potential_energy], None)
    ax = plot_term_energies(run)
    assert len({line.get_color() for line in ax.get_lines()}) == 6


def test_the_difference_is_drawn_with_mean_and_standard_deviation():
    difference = np.array([-10.0, -12.0, -11.0])
    ax = plot_difference(np.array([0.1, 0.2, 0.3]), difference)
    assert labels(ax) == ["QM - ML, 3 points", "standard deviation 1.00 kJ/mol", "mean -11.00 kJ/mol"]
    assert "single run" in ax.get_title(loc="left")
    assert ax.get_ylabel() == "QM - ML (kJ/mol)"


def test_quantities_are_converted():
    difference = np.array([1.0, 2.0]) * unit.kilocalorie_per_mole
    ax = plot_difference(np.array([100.0, 200.0]) * unit.femtosecond, difference)
    line = ax.get_lines()[-1]
    np.testing.assert_allclose(line.get_xdata(), [0.1, 0.2])
    np.testing.assert_allclose(line.get_ydata(), [4.184, 8.368])


def test_one_point_has_no_standard_deviation():
    assert labels(plot_difference([0.1], [-10.0])) == ["QM - ML, 1 point", "mean -10.00 kJ/mol"]


@pytest.mark.parametrize(("time", "difference"), [([1, 2], [1]), ([], []), ([[1]], [[1]])])
def test_data_of_different_lengths_are_refused(time, difference):
    with pytest.raises(TableError, match="one-dimensional and of one length"):
        plot_difference(time, difference)


def test_given_axes_are_drawn_into():
    figure = Figure()
    first, second = figure.subplots(2, 1)
    assert plot_term_energies(table(), first) is first
    assert plot_difference([1.0, 2.0], [3.0, 4.0], ax=second) is second


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_the_figure_of_a_run_has_one_panel_more_than_corrected_regions(tmp_path, ending, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    save_run_figure(table(), tmp_path / f"run.{ending}")
    save_run_figure(table(terms=["MM", "ligand/ML"]), tmp_path / f"plain.{ending}")
    assert [len({ax.get_subplotspec() for ax in figure.axes}) for figure in drawn] == [2, 1]
    assert (tmp_path / f"run.{ending}").stat().st_size > 5000


def test_plots_leave_pyplot_alone(tmp_path):
    code = (
        "import sys\n"
        "from qmmlmm.analysis import plots\n"
        "assert 'matplotlib' not in sys.modules, 'matplotlib is imported with the module'\n"
        "plots.plot_difference([1.0, 2.0], [1.0, 2.0]).figure.savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "f.png")], check=True)
