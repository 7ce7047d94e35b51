from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.errors import OutputFileError
from qmmlmm.runs.trajectory import TrajectoryReporter, cut_trajectory, trajectory_format

# DCD keeps single precision of angstrom, XTC a grid of 0.001 nm.
RESOLUTION = {"dcd": 1e-6, "xtc": 6e-4}  # nm


@pytest.fixture(params=["dcd", "xtc"])
def kind(request):
    return request.param


def write(argon, path, frames, *, first_step=0, interval=2):
    """Write frames and return their positions."""
    simulation = argon.simulation()
    simulation.currentStep = first_step
    reporter = TrajectoryReporter(path, interval, first_step=first_step)
    simulation.reporters.append(reporter)
    positions = []
    for _ in range(frames):
        simulation.step(interval)
        state = simulation.context.getState(positions=True, enforcePeriodicBox=True)
        positions.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    reporter.close()
    return simulation, np.array(positions)


def read(argon, path):
    topology = mdtraj.Topology.from_openmm(argon.topology)
    return mdtraj.load(str(path), top=topology)


def test_frames_read_back_are_those_of_the_simulation(argon, kind, tmp_path):
    path = tmp_path / f"t.{kind}"
    _, positions = write(argon, path, 3)
    trajectory = read(argon, path)
    np.testing.assert_allclose(trajectory.xyz, positions, rtol=0, atol=RESOLUTION[kind])
    np.testing.assert_allclose(trajectory.unitcell_lengths, 2.4, rtol=1e-6)


@pytest.mark.parametrize("tail", [b"", b"\x00", b"half of a frame" * 10])
def test_a_trajectory_is_cut_and_continued_without_double_frames(argon, kind, tmp_path, tail):
    path = tmp_path / f"t.{kind}"
    simulation, positions = write(argon, path, 5)
    if tail:
        with open(path, "ab") as file:
            file.write(tail)
    cut_trajectory(path, 3, argon.topology.getNumAtoms())
    np.testing.assert_allclose(read(argon, path).xyz, positions[:3], rtol=0, atol=RESOLUTION[kind])
    simulation.reporters[:] = [TrajectoryReporter(path, 2, append=True)]
    simulation.step(2)
    simulation.reporters[0].close()
    assert len(read(argon, path)) == 4


def test_a_frame_that_was_cut_short_is_removed(argon, kind, tmp_path):
    path = tmp_path / f"t.{kind}"
    _, positions = write(argon, path, 3)
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    cut_trajectory(path, 2, argon.topology.getNumAtoms())
    np.testing.assert_allclose(read(argon, path).xyz, positions[:2], rtol=0, atol=RESOLUTION[kind])


def test_the_header_of_a_cut_dcd_file_counts_its_frames(argon, tmp_path):
    path = tmp_path / "t.dcd"
    write(argon, path, 5, first_step=7, interval=3)
    cut_trajectory(path, 2, argon.topology.getNumAtoms())
    frames, first, interval, last = struct.unpack("<4i", path.read_bytes()[8:24])
    assert (frames, first, interval, last) == (2, 9, 3, 12)


def test_cutting_all_frames_removes_the_file(argon, kind, tmp_path):
    path = tmp_path / f"t.{kind}"
    write(argon, path, 1)
    cut_trajectory(path, 0, argon.topology.getNumAtoms())
    assert not path.exists()


@pytest.mark.parametrize("kept", [0, 2])
def test_a_trajectory_with_too_few_frames_is_refused(argon, kind, tmp_path, kept):
    path = tmp_path / f"t.{kind}"
    if kept:
        write(argon, path, kept)
    with pytest.raises(OutputFileError, match=f"has {kept} whole frames, the checkpoint needs 4"):
        cut_trajectory(path, 4, argon.topology.getNumAtoms())


def test_a_trajectory_of_other_atoms_is_refused(argon, kind, tmp_path):
    path = tmp_path / f"t.{kind}"
    write(argon, path, 2)
    with pytest.raises(OutputFileError, match=r"has 27 atoms.*, the topology 30"):
        cut_trajectory(path, 1, 30)


def test_a_file_that_is_no_trajectory_is_refused(kind, tmp_path):
    path = tmp_path / f"t.{kind}"
    path.write_bytes(b"0123456789" * 50)
    with pytest.raises(OutputFileError, match=r"no DCD file|no XTC frame|atoms in frame"):
        cut_trajectory(path, 1, 27)


def test_xtc_frames_of_few_atoms_are_not_compressed_and_still_cut(tmp_path):
    topology = app.Topology()
    chain = topology.addChain()
    system = openmm.System()
    for _ in range(4):
        topology.addAtom("AR", None, topology.addResidue("AR", chain))
        system.addParticle(40.0)
    simulation = app.Simulation(
        topology, system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(np.arange(12.0).reshape(4, 3))
    path = tmp_path / "t.xtc"
    simulation.reporters.append(TrajectoryReporter(path, 1))
    simulation.step(3)
    cut_trajectory(path, 2, 4)
    assert len(mdtraj.load(str(path), top=mdtraj.Topology.from_openmm(topology))) == 2


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(OutputFileError, match=r"dcd or xtc files, got 't.trr'"):
        trajectory_format(tmp_path / "t.trr")


def test_a_full_disk_reaches_the_user(kind, tmp_path):
    # A limit on the size of files stands in for the full disk.
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.runs.argon import Argon; from qmmlmm.runs.trajectory import TrajectoryReporter\n"
        "simulation = Argon().simulation()\n"
        "simulation.reporters.append(TrajectoryReporter(Path(sys.argv[1]), 1))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "simulation.step(20)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / f"t.{kind}")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "OSError" in result.stderr
