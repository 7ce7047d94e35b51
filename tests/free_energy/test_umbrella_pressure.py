"""Umbrella windows at constant pressure: volumes that are known, boxes of starts, kills."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from openmm import app

from qmmlmm.analysis.tables import read_energies
from qmmlmm.errors import EvaluationError, RunDirectoryError, SettingError
from qmmlmm.free_energy import UmbrellaSampling
from qmmlmm.free_energy.umbrella_window import run_window
from qmmlmm.runs.checkpoint import load_state
from qmmlmm.time_series import statistical_inefficiency
from qmmlmm.units import GAS_CONSTANT
from tests.free_energy.gas import EDGE, EVERY, FREE_ATOMS, VOLUME, create_gas, gas_at
from tests.free_energy.wells import GAP, TEMPERATURE, create_pair, pair_at, well_energy

SETTINGS = {
    "create": create_gas,
    "variable": GAP,
    "centres": [0.25, 0.26],
    "force_constants": 2e4,
    "starts": gas_at(0.25),
    "temperature": TEMPERATURE,
    "steps": 1000,
    "interval": 20,
    "frame_interval": 40,
    "checkpoint_interval": 250,
    "seed": 7,
}
FILES = ("variable.csv", "energies.csv", "trajectory.dcd", "state.xml")
DCD_HEADER = 276
"""Bytes, among them the date."""


def sampling(directory, **changes):
    return UmbrellaSampling(directory, **{**SETTINGS, **changes})


def create_at_constant_volume(umbrella):
    return create_gas(umbrella, barostat=False)


def box_of(window):
    return load_state(window.folder).getPeriodicBoxVectors(asNumpy=True)._value


def same(one, other):
    for k in range(2):
        for name in FILES:
            contents = [(folder / f"{k:03d}" / name).read_bytes() for folder in (one, other)]
            if name.endswith("dcd"):
                contents = [content[DCD_HEADER:] for content in contents]
            assert contents[0] == contents[1], f"{name} of window {k}"


def test_windows_at_constant_pressure_that_go_on_from_a_checkpoint_take_the_same_steps(tmp_path):
    whole = sampling(tmp_path / "whole")
    whole.run()
    sampling(tmp_path / "parts", steps=500).run()
    parts = sampling(tmp_path / "parts")
    parts.run()
    same(tmp_path / "whole", tmp_path / "parts")
    volumes = [np.linalg.det(box_of(window)) for window in parts.windows]
    assert len({*np.round(volumes, 6), np.round(VOLUME, 6)}) == 3


SCRIPT = """
from tests.free_energy.test_umbrella_pressure import sampling
sampling({path!r}, steps=8000).run()
"""


@pytest.mark.slow
def test_windows_at_constant_pressure_that_are_killed_take_the_same_steps(tmp_path):
    whole, path = tmp_path / "whole", tmp_path / "killed"
    sampling(whole, steps=8000).run()
    for k in range(2):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(path=str(path))])
        table = path / f"{k:03d}" / "variable.csv"
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline and process.poll() is None:
            if table.exists() and table.stat().st_size > 5_000:
                break
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    sampling(path, steps=8000).run()
    same(whole, path)


@pytest.mark.slow
def test_windows_at_constant_pressure_have_the_volume_of_an_ideal_gas_and_the_profile_of_the_well(truth, tmp_path):
    """The umbrella acts within one molecule of the gas: neither changes what is known of the other.

    The moves of the barostat grow for some thousand steps to the size that this gas needs.
    """
    made = sampling(tmp_path, centres=np.linspace(0.235, 0.365, 10), steps=40000, equilibration=4000,
                    checkpoint_interval=44000)  # fmt: skip
    made.run()
    volumes = [read_energies(window.folder / "energies.csv").volume._value[101:] for window in made.windows]
    independent = sum(len(v) / statistical_inefficiency(v) for v in volumes)
    series = np.concatenate(volumes)
    error = series.std() / np.sqrt(independent)
    assert error < 0.01 * VOLUME
    check = "windows at constant pressure in an ideal gas: volume from (N + 1) kT/p"
    truth.below(check, (series.mean() - VOLUME) / error, 2.5, "standard errors")
    assert series.std() == pytest.approx(VOLUME / np.sqrt(FREE_ATOMS + 2), rel=0.15)
    edges = np.linspace(0.24, 0.36, 13)
    profile = made.profile(edges=edges)
    kt = GAS_CONSTANT * TEMPERATURE
    inside = np.array([np.linspace(low, high, 201) for low, high in itertools.pairwise(edges)])
    # Of two atoms in space, distances r have the volume r^2.
    expected = -kt * np.log((inside**2 * np.exp(-well_energy(inside) / kt)).mean(axis=1))
    errors = profile.error._value
    off = profile.free_energy._value - expected
    off -= np.average(off, weights=errors**-2)
    assert errors.max() < 0.2
    check = "windows at constant pressure: every bin of a double well from the exact profile"
    truth.below(check, np.abs(off / errors).max(), 3.0, "standard errors")


def test_each_start_has_its_own_box(tmp_path):
    """The second start is far from its centre and pulled there; the first and the third are taken as they are."""
    boxes = np.array([scale * EDGE * np.eye(3) for scale in (1.0, 1.2, 0.9)])
    made = sampling(tmp_path, create=create_at_constant_volume, centres=[0.25, 0.33, 0.26], steps=200,
                    starts=[gas_at(0.25), gas_at(0.24), gas_at(0.26)], box_vectors=boxes)  # fmt: skip
    made._make_starts()
    for window, box in zip(made.windows, boxes, strict=True):
        with np.load(window.start_path) as file:
            assert np.allclose(file["box"], box, atol=1e-12)
        run_window(window)
        assert np.allclose(box_of(window), box, atol=1e-12)


def test_without_boxes_of_their_own_starts_have_that_of_the_system(tmp_path):
    """Also after a window that was pulled, by which the barostat changed the box."""
    made = sampling(tmp_path, centres=[0.33, 0.25], steps=200, starts=[gas_at(0.24), gas_at(0.25)])
    made._make_starts()
    pulled, given = (np.load(window.start_path)["box"] for window in made.windows)
    assert not np.allclose(pulled, EDGE * np.eye(3), atol=1e-6)
    assert np.allclose(given, EDGE * np.eye(3), atol=1e-12)


def test_one_box_is_that_of_the_one_start_that_is_pulled(tmp_path):
    made = sampling(tmp_path, create=create_at_constant_volume, box_vectors=2.5 * np.eye(3))
    made._make_starts()
    for window in made.windows:
        assert np.allclose(np.load(window.start_path)["box"], 2.5 * np.eye(3), atol=1e-12)
    made._check_record(tmp_path)
    for other in (None, 2.6 * np.eye(3)):
        with pytest.raises(RunDirectoryError, match="windows with other settings: box_vectors"):
            sampling(tmp_path, create=create_at_constant_volume, box_vectors=other).run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_interval": 502}, f"comes every 502 steps, and MonteCarloBarostat changes the box every {EVERY}"),
        (
            {"box_vectors": np.zeros(3)},
            r"box_vectors have the shape .3, 3., or .k, 3, 3. with as many starts, got .3,.",
        ),
        ({"box_vectors": np.zeros((2, 3, 3))}, "box_vectors have the shape"),
        ({"box_vectors": "box"}, "box_vectors is an array of numbers"),
        ({"box_vectors": np.ones((3, 3))}, "are no box of OpenMM: First periodic box vector must be"),
        (
            {"create": create_pair, "starts": pair_at(0.25), "box_vectors": np.eye(3)},
            "box_vectors are given, and the System that create makes has no box",
        ),
    ],
)
def test_what_cannot_be_at_constant_pressure_is_said(tmp_path, changes, message):
    with pytest.raises(SettingError, match=message):
        sampling(tmp_path, **changes).run()


def test_windows_that_exchange_are_refused_at_constant_pressure(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "ReplicaExchangeSampler", object, raising=False)
    with pytest.raises(SettingError, match="exchange have a constant volume, and the System has a MonteCarloBarostat"):
        sampling(tmp_path, exchange=True).run()


def test_a_checkpoint_interval_that_became_odd_is_said_of_its_window(tmp_path):
    sampling(tmp_path, steps=400).run()
    with pytest.raises(EvaluationError, match=r"000 .SettingError: a checkpoint comes every 333 steps"):
        sampling(tmp_path, checkpoint_interval=333).run()
