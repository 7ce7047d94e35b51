"""Figures and tables of surface hopping: what is drawn is what the trajectories say."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from qmmlmm.analysis.hopping_figure import (
    energy_drift,
    plot_state_populations,
    plot_states,
    plot_total_energy,
    save_hopping_figure,
)
from qmmlmm.nonadiabatic.ensemble import TrajectoryRecord
from qmmlmm.nonadiabatic.populations import populations
from qmmlmm.units import HARTREE_IN_EV, HARTREE_IN_KJ_PER_MOL

EV = HARTREE_IN_KJ_PER_MOL / HARTREE_IN_EV  # kJ/mol


def course(hop=4, count=9):
    """A trajectory that leaves state 1 for state 0 at a step, and whose energy rises by 1 meV at the end."""
    times = 0.0005 * np.arange(count)
    states = np.where(np.arange(count) < hop, 1, 0)
    energies = EV * np.stack([0.1 * np.arange(count), 4.0 - 0.2 * np.arange(count)], axis=1) - 500.0
    total = np.full(count, -7000.0)
    total[-1] += 1e-3 * EV
    return TrajectoryRecord(times, states, np.eye(2)[states], energies, total)


def test_all_states_are_drawn_in_ev_and_the_active_one_and_its_change_are_marked():
    ax = plot_states(course())
    assert ax.get_xlabel() == "time (fs)"
    assert "(eV)" in ax.get_ylabel()
    lower, upper, active, change, mark = (line.get_xydata() for line in ax.get_lines())
    assert lower[:, 1] == pytest.approx(0.1 * np.arange(9))
    assert upper[:, 1] == pytest.approx(4.0 - 0.2 * np.arange(9))
    assert active[:, 1] == pytest.approx([*upper[:4, 1], *lower[4:, 1]])
    assert change[:, 1] == pytest.approx([upper[4, 1], lower[4, 1]])
    assert mark[0] == pytest.approx([2.0, 0.4])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["state 0", "state 1", "active", "change of the active state"]


def test_a_trajectory_without_a_change_has_no_mark():
    assert len(plot_states(course(hop=20)).get_lines()) == 3


def test_the_drift_of_the_total_energy_is_drawn_in_mev_and_named_in_ev():
    ax = plot_total_energy([course()])
    assert ax.get_lines()[0].get_ydata()[-1] == pytest.approx(1.0)
    assert ax.get_title(loc="left") == "largest drift 0.001 eV"
    assert energy_drift(course()) == pytest.approx(1e-3)
    fallen = course()
    fallen.total_energies[3] -= 0.05 * EV
    assert energy_drift(fallen) == pytest.approx(-0.05)


def found(hops=(3, 5, 20)):
    courses = [course(hop) for hop in hops]
    states, squares = (np.array([getattr(c, name) for c in courses]) for name in ("states", "squares"))
    return populations(courses[0].times, states, squares), courses


def test_populations_are_drawn_with_their_bands_and_two_ensembles_into_one():
    shares, _ = found()
    ax = plot_state_populations(shares, label="QM")
    plot_state_populations(shares, ax, dashed=True, label="ML")
    assert ax.get_lines()[1].get_ydata() == pytest.approx(shares.shares[:, 1])
    band = ax.collections[1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(shares.lower[:, 1].min())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "QM state 0", "QM state 1", "ML state 0", "ML state 1"
    ]  # fmt: skip
    assert ax.get_lines()[0].get_linestyle() != ax.get_lines()[2].get_linestyle()


def test_one_figure_shows_an_ensemble(tmp_path):
    shares, courses = found()
    save_hopping_figure(courses, shares, tmp_path / "states.png", title="nothing")
    assert (tmp_path / "states.png").stat().st_size > 10_000
    assert isinstance(plot_states(course()).figure, Figure)


def test_tables_have_units_in_their_headers_and_are_read_back(tmp_path):
    shares, courses = found()
    courses[0].write_csv(tmp_path / "trajectory.csv")
    shares.write_csv(tmp_path / "populations.csv")
    first = (tmp_path / "trajectory.csv").read_text().splitlines()[0]
    assert first.startswith('#"Time (ps)","State","Total Energy (kJ/mol)","Energy 0 (kJ/mol)","Energy 1 (kJ/mol)"')
    table = np.loadtxt(tmp_path / "trajectory.csv", delimiter=",")
    assert table[:, 3:5] == pytest.approx(courses[0].energies)
    assert (table[:, 1] == courses[0].states).all()
    table = np.loadtxt(tmp_path / "populations.csv", delimiter=",")
    for column, values in ((1, shares.shares), (2, shares.lower), (3, shares.upper), (4, shares.amplitudes)):
        assert table[:, column::4][:, :2] == pytest.approx(values)
