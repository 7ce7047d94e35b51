from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.analysis.model_quality import plot_calibration, plot_learning_curve, plot_parity, report_figure


def test_parity_draws_every_value_and_names_the_mean_absolute_error():
    computed = np.array([[0.0, 1.0], [2.0, 5.0]])
    ax = plot_parity(computed, computed + np.array([[1.0, -1.0], [1.0, 1.0]]), "energy, kJ/mol")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0.0, 1.0, 2.0, 5.0])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1.0, 0.0, 3.0, 6.0])
    assert "mean absolute error 1," in ax.get_title()
    assert ax.get_xlabel() == "computed energy, kJ/mol"


def test_bins_of_a_calibrated_spread_lie_on_the_diagonal():
    rng = np.random.default_rng(2)
    spread = rng.uniform(1.0, 30.0, size=4000)
    error = 1.5 * spread * np.abs(rng.standard_normal(4000))
    ax = plot_calibration(spread, error, 1.5)
    bins = ax.lines[1]
    # The mean square of a normal number is one; 500 values in a bin give it to a few per cent.
    np.testing.assert_allclose(bins.get_ydata(), bins.get_xdata(), rtol=0.12)
    assert "spread times 1.50" in ax.get_title()
    ax.figure.draw_without_rendering()
    for axis in (ax.xaxis, ax.yaxis):
        labels = [text.get_text() for text in [*axis.get_majorticklabels(), *axis.get_minorticklabels()]]
        # Plain numbers that begin with one, two or five.
        assert {label.replace("0", "").replace(".", "") for label in labels} <= {"", "1", "2", "5"}
        assert sum(bool(label) for label in labels) >= 3


def test_a_learning_curve_says_that_each_point_is_one_training():
    ax = plot_learning_curve([50, 100], np.array([30.0, 20.0]), "error, kJ/(mol nm)")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["50", "100"]
    assert ax.get_legend().get_texts()[0].get_text() == "single run"


@pytest.mark.parametrize("columns", [1, 3])
def test_a_figure_has_axes_side_by_side(columns):
    figure, axes = report_figure(columns)
    assert len(axes) == columns
    assert axes[0].figure is figure
