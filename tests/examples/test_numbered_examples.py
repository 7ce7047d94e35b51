"""The numbered examples run as they stand, and the numbers that they print agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LONGEST = 60
"""Lines of a numbered example."""

NUMBER = r"(-?\d+\.\d+(?:[eE][-+]?\d+)?)"

ROUNDED = 2e-4
"""kJ/mol: sums of a few numbers with four decimals."""

NUMERICAL = 0.1
"""kJ/(mol nm): error of a central difference with steps of 1e-4 nm in forces of some 1000 kJ/(mol nm)."""

SAME_FORCE = 1e-3
"""kJ/(mol nm): QM forces from two densities that are converged to 1e-9 hartree."""

CONSERVED = 0.3
"""kJ/mol: fluctuation of the total energy of 580 waters on the CPU platform, in single precision; 0.07 measured."""

ALIKE = 40.0
"""kJ/mol: difference of the interactions of two levels with water, of -50 kJ/mol."""

RESPONSES = 5.0
"""kJ/mol: difference of the interactions by a response from ten labels and by one from none, whose mean errors are 1.4;
0.5 measured."""

CORRECTED = 3.0
"""kJ/mol: the same with acetone, whose HF - GFN2-xTB is larger than the error of a trained model; 0.8 measured."""


def printed(example: str, tmp_path: Path, *arguments: str) -> str:
    """Return what an example prints when it runs in an empty directory."""
    (path,) = EXAMPLES.glob(f"{example}_*.py")
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("QmmlmmWarning" in done.stderr) == (example == "05"), done.stderr
    return done.stdout


def numbers(pattern: str, text: str) -> list[float]:
    """Return the numbers behind all places where a pattern matches, in order."""
    return [float(found) for found in re.findall(pattern + r"\s*" + NUMBER, text)]


def number(pattern: str, text: str) -> float:
    """Return the only such number."""
    (found,) = numbers(pattern, text)
    return found


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[0-9][0-9]_*.py")), ids=lambda path: path.stem)
def test_a_numbered_example_is_short_and_does_nothing_that_the_package_does(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert text.startswith('"""')
    assert not re.search(r"setForceGroup|force_groups|\b_[a-z]\w*\(", text)


def test_term_energies_add_up_and_forces_are_derivatives(tmp_path):
    text = printed("01", tmp_path)
    assert number("MM", text) + number("acetone/QM", text) == pytest.approx(number("sum", text), abs=ROUNDED)
    for atom in ("O of acetone", "O of a water"):
        force, numerical = number(f"{atom}, force", text), number(f"{atom}, numerical", text)
        assert abs(force) > 100.0
        assert force == pytest.approx(numerical, abs=NUMERICAL)


@pytest.mark.slow
def test_the_field_of_water_lowers_the_energy_of_the_network_and_dynamics_runs(tmp_path):
    text = printed("02", tmp_path)
    change = number("in the field", text) - number("without surroundings", text)
    assert -150.0 < change < -20.0
    rows = [line.split(",") for line in text.splitlines() if re.match(r"\d+,", line)]
    assert [int(row[0]) for row in rows] == [20, 40, 60, 80, 100]
    assert all(200.0 < float(row[-1]) < 400.0 for row in rows)


@pytest.mark.slow
def test_the_corrected_network_has_the_energy_and_forces_of_qm(tmp_path):
    text = printed("03", tmp_path)
    assert number("water/ML", text) == -number("water/-ML", text)
    difference = number("water/QM", text) + number("water/-ML", text)
    assert number(r"\nQM - ML", text) == pytest.approx(difference, abs=ROUNDED)
    # The network was trained to less than 1 kJ/mol.
    assert abs(difference) < 3.0
    assert number(r"ML \+ QM - ML:", text) == pytest.approx(number("QM/MM:", text), abs=ROUNDED)
    assert number("difference of the forces:", text) < SAME_FORCE


@pytest.mark.slow
def test_multiple_time_steps_conserve_the_energy_with_one_qm_evaluation_in_each_outer_step(tmp_path):
    text = printed("04", tmp_path)
    rows = [[float(x) for x in line.split()] for line in text.splitlines() if re.fullmatch(r"[-\d. ]+", line)]
    assert [row[0] for row in rows] == [2.0 * (k + 1) for k in range(10)]
    totals = [row[1] for row in rows]
    assert max(totals) - min(totals) < CONSERVED
    # One for each outer step, and one at the start.
    assert "11 QM evaluations for 40 steps of 0.5 fs" in text


@pytest.mark.slow
def test_weights_add_up_and_are_fewer_than_the_frames(tmp_path):
    text = printed("05", tmp_path)
    assert number("sum of the weights:", text) == 1.0
    assert 1.0 <= number("effective samples:", text) <= 30.0
    difference, free_energy = number("QM - ML: mean", text), number("relative to ML/MM:", text)
    # Jensen's inequality: the free energy is never above the mean. Both have three decimals.
    assert free_energy <= difference + 1e-3
    ml, qm = number("distance: ML/MM", text), number("nm, QM/MM", text)
    assert 0.090 < ml < 0.100
    assert qm == pytest.approx(ml, abs=0.003)


def test_a_potential_of_the_users_own_passes_the_check_and_runs(tmp_path):
    text = printed("06", tmp_path)
    assert number("forces on the region in a vacuum", text) < 1e-6
    assert 0.0 < number("water/ML", text) < 50.0


def test_an_excited_state_has_the_same_gap_by_both_routes_and_stretches_the_bond(tmp_path):
    text = printed("07", tmp_path)
    first, second = number(r"S1:", text), number("S2:", text)
    assert 4.0 < first < second < 14.0
    assert number("of the Contexts:", text) == pytest.approx(first, abs=2e-3)
    forces = numbers("stretches the C=N bond", text)
    assert forces[1] > forces[0] + 1000.0


def test_the_interactions_of_residues_add_up(tmp_path):
    text = printed("08", tmp_path)
    labels = ("ACE1", "ALA2 outside the region", "NME3", "water", "own periodic images")
    electrostatic = [number(label, text) for label in labels]
    assert sum(electrostatic) == pytest.approx(number("interaction energy", text), abs=5e-3)
    for row in re.findall(rf"(?:ACE1|NME3|water|region) +{NUMBER} +{NUMBER} +{NUMBER}", text):
        assert float(row[0]) + float(row[1]) == pytest.approx(float(row[2]), abs=2e-3)
    assert number("polarisation of the region", text) > 0.0


@pytest.mark.slow
def test_xtb_samples_and_its_correction_conserves_the_energy(tmp_path):
    text = printed("10", tmp_path, "0.05")
    assert 0.115 < number("C=O", text) < 0.13
    assert -0.6 < number("charge of O", text) < -0.3
    rows = [[float(x) for x in line.split()] for line in text.splitlines() if re.fullmatch(r"[-\d. ]+", line)]
    assert [row[0] for row in rows] == [2.0 * (k + 1) for k in range(8)]
    totals = [row[1] for row in rows]
    assert max(totals) - min(totals) < CORRECTED


@pytest.mark.slow
def test_a_network_is_trained_saved_and_read(tmp_path):
    text = printed("09", tmp_path, "12", "60", "water.pt")
    assert "12 labels, 60 steps" in text
    # Forces of the labels are some 1000 kJ/(mol nm).
    assert 0.0 < number("forces", text) < 500.0
    assert 0.0 < number("energy", text) < 10.0
    from qmmlmm import MLPotential

    assert MLPotential.load(tmp_path / "water.pt").atomic_numbers == (8, 1, 1)


@pytest.mark.slow
def test_the_barriers_of_butane_are_those_of_its_torsion(tmp_path):
    """Bins of 10 degrees: the profile of the flexible chain is the energy of its torsion."""
    text = printed("11", tmp_path)
    for way, exact in (("trans to gauche:", 13.70), ("gauche to trans:", 10.15)):
        (error,) = numbers(re.escape(f"{way} {number(way, text):.2f} +-"), text)
        assert abs(number(way, text) - exact) < 3.0 * error
        assert error < 0.5
    assert (tmp_path / "butane_umbrella" / "profile.png").exists()


@pytest.mark.slow
def test_a_difference_to_xtb_is_learned_and_added_to_it(tmp_path):
    text = printed("12", tmp_path, "16", "40")
    before, after = number("of the labels", text), number("after GFN2-xTB", text)
    assert after < 0.5 * before
    assert number("forces", text.split("validation frames")[1]) < after
    for line in ("acetone/XTB", "acetone/correction", "a correction, which counts in no sum"):
        assert line in text


@pytest.mark.slow
def test_a_potential_is_embedded_by_ten_labels_and_by_none(tmp_path):
    text = printed("13", tmp_path)
    assert "coefficients from 10 labels" in text
    xtb, *embedded = (number(name, text) for name in ("in the field", "from ten labels", "from no label"))
    # All feel the same water, with interactions of some -50 kJ/mol: those of the two levels differ by some 10.
    assert all(0.0 < abs(xtb - each) < ALIKE for each in embedded)
    assert 0.0 < abs(embedded[0] - embedded[1]) < RESPONSES
    assert (tmp_path / "acetone_response.json").is_file()
