from __future__ import annotations

import numpy as np
import pytest
from scipy import constants

from qmmlmm.errors import TransitionsError
from qmmlmm.spectra.absorption import (
    STRENGTH_OF_ABSORPTION,
    broadened,
    mean_of,
    plot_spectra,
    spectrum_of,
    transition_table,
    usual_grid,
    write_spectrum_report,
)
from qmmlmm.spectra.transitions import Transitions
from qmmlmm.units import EV_IN_PER_CM


@pytest.fixture
def transitions():
    rng = np.random.default_rng(1)
    vacuum = np.array([4.0, 6.0]) + 0.1 * rng.standard_normal((30, 2))
    shift = np.array([0.2, -0.1]) + 0.02 * rng.standard_normal((30, 2))
    strengths = np.abs(np.array([1e-4, 0.3]) * (1.0 + 0.1 * rng.standard_normal((30, 2))))
    return Transitions(vacuum + shift, strengths, vacuum, 0.9 * strengths)


def test_constants_are_those_of_codata():
    c = constants
    strength = 4 * c.epsilon_0 * c.m_e * c.c**2 * np.log(10) / (c.N_A * c.e**2)  # for m^2/mol and 1/m
    assert pytest.approx(10.0 * strength, rel=1e-6) == STRENGTH_OF_ABSORPTION
    per_metre = c.physical_constants["electron volt-inverse meter relationship"][0]
    assert pytest.approx(0.01 * per_metre, rel=1e-9) == EV_IN_PER_CM


@pytest.mark.parametrize(("shape", "lost"), [("gaussian", 1e-9), ("lorentzian", 5e-3)])
def test_the_area_of_a_line_is_its_strength(shape, lost):
    grid = np.linspace(-60.0, 70.0, 200_001)
    line = broadened(np.array([[5.0]]), np.array([[0.7]]), grid, 0.4, shape)[0]
    area = np.trapezoid(line, grid * EV_IN_PER_CM)
    assert area * STRENGTH_OF_ABSORPTION == pytest.approx(0.7, rel=lost)
    assert grid[line >= 0.5 * line.max()][-1] - 5.0 == pytest.approx(0.2, abs=2e-3)


def test_the_height_of_a_gaussian_is_that_of_the_usual_formula():
    # 1.3062974e8 f / sigma, sigma in 1/cm the half width at 1/e (Gaussian Inc., "Creating UV/Visible Plots").
    sigma = 3226.22
    full_width = 2.0 * np.sqrt(np.log(2.0)) * sigma / EV_IN_PER_CM
    height = broadened(np.array([[4.0]]), np.array([[1.0]]), np.array([4.0]), full_width)[0, 0]
    assert height == pytest.approx(1.3062974e8 / sigma, rel=1e-4)


def test_an_error_bar_knows_of_correlation():
    rng = np.random.default_rng(3)
    independent = rng.standard_normal(4000)
    assert mean_of(independent).error == pytest.approx(1.0 / np.sqrt(4000), rel=0.1)
    memory = 0.9
    series = np.zeros(40_000)
    for k in range(1, len(series)):
        series[k] = memory * series[k - 1] + rng.standard_normal()
    g = (1.0 + memory) / (1.0 - memory)  # of a first-order autoregression
    found = mean_of(series)
    assert len(series) / found.n_effective == pytest.approx(g, rel=0.15)
    assert found.error == pytest.approx(series.std() * np.sqrt(g / len(series)), rel=0.1)


def test_the_band_of_a_spectrum_has_no_steps():
    rng = np.random.default_rng(7)
    energies = 4.5 + 0.18 * rng.standard_normal((50, 1))
    strengths = 1e-4 * rng.random((50, 1))
    grid = np.linspace(3.5, 5.5, 401)
    spectrum = spectrum_of(energies, strengths, grid)
    # Neighbouring points of lines of 0.3 eV differ by little.
    assert np.abs(np.diff(spectrum.error)).max() < 0.03 * spectrum.error.max()
    lines = broadened(energies, strengths, grid, 0.3)
    plain = lines.std(axis=0, ddof=1) / np.sqrt(50)
    ratio = spectrum.error[100:300] / plain[100:300]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    assert 1.0 <= ratio[0] < 1.6


def test_an_error_bar_of_one_snapshot_is_refused():
    with pytest.raises(TransitionsError, match="two snapshots or more, got 1"):
        mean_of(np.ones(1))


def test_a_spectrum_is_the_mean_of_its_snapshots(transitions):
    grid = usual_grid(transitions, 0.3)
    spectrum = spectrum_of(transitions.energies, transitions.strengths, grid, 0.3)
    lines = broadened(transitions.energies, transitions.strengths, grid, 0.3)
    np.testing.assert_allclose(spectrum.absorption, lines.mean(0))
    strongest = np.argmax(spectrum.absorption)
    assert grid[strongest] == pytest.approx(5.9, abs=0.1)
    assert 0.0 < spectrum.error[strongest] < 0.2 * spectrum.absorption[strongest]


def test_widths_and_shapes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="above zero, in eV, got 0"):
        broadened(np.ones((1, 1)), np.ones((1, 1)), np.ones(3), 0.0)
    with pytest.raises(ValueError, match="got 'voigt'"):
        broadened(np.ones((1, 1)), np.ones((1, 1)), np.ones(3), 0.1, "voigt")


def test_the_table_has_the_shift_with_its_error(transitions):
    rows = transition_table(transitions).splitlines()
    assert rows[0].endswith("shift, eV |")
    shift = float(rows[2].split("|")[-2].split("±")[0])
    error = float(rows[2].split("|")[-2].split("±")[1])
    assert abs(shift - 0.2) < 4 * error < 0.05
    bare = Transitions(transitions.energies, transitions.strengths)
    assert "shift" not in transition_table(bare)
    with pytest.raises(TransitionsError, match="vacuum=True"):
        bare.shifts()


def test_the_report_has_figure_and_curve(tmp_path, transitions):
    report = write_spectrum_report(tmp_path / "new", transitions, title="Dye in water")
    assert report.read_text(encoding="utf-8").startswith("# Dye in water")
    curve = np.genfromtxt(tmp_path / "new" / "spectrum.csv", delimiter=",", names=True)
    assert curve.dtype.names[1] == "absorption_l_per_mol_cm"
    assert curve["absorption_l_per_mol_cm"].max() > 0.0
    assert (tmp_path / "new" / "spectrum.png").stat().st_size > 10_000


def test_the_figure_shows_both_curves(transitions):
    axes = plot_spectra(transitions)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "in its surroundings",
        "the same geometries in vacuum",
    ]
