"""Equilibrium windows and switching trajectories, as tasks that any process can start or continue.

A trajectory is a chain of segments. After each one its file is replaced, so that a process may be killed at any moment.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qmmlmm.coupling.hamiltonian import Hamiltonian
from qmmlmm.durable_files import replace_file, sealed, unsealed
from qmmlmm.errors import NonFiniteError, RunDirectoryError
from qmmlmm.free_energy.switching_settings import SwitchingSettings
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.runs.task_lock import task_lock
from qmmlmm.sampling.leg import Leg
from qmmlmm.sampling.segments import Frame, SegmentSimulation
from qmmlmm.units import FloatArray

PARAMETER = "lambda_level"
"""Parameter between the two levels of a stage: zero is the lower one."""

PROGRESS_NAME = "progress.npz"
LARGEST_SEED = 2**31 - 1

# The Simulation of the last task of each thread: many tasks follow each other that differ in their start only.
_last = threading.local()


@dataclass(frozen=True)
class Stage:
    """Two levels of one leg.

    Parameters
    ----------
    leg_name, name : str
        Name of the leg, and of the stage such as ``"FF-XTB"``.
    leg : Leg
    hamiltonian : Hamiltonian
        Result of `interpolated_hamiltonian` with `PARAMETER`.
    settings : SwitchingSettings
    """

    leg_name: str
    name: str
    leg: Leg
    hamiltonian: Hamiltonian
    settings: SwitchingSettings

    def create(self) -> MixedSystem:
        """Return the System that mixes both levels."""
        # The coefficients depend on a parameter, so that learned terms run through PythonForce anyway.
        return create_mixed_system(self.leg.topology, self.leg.system, self.hamiltonian, ml_backend="pythonforce")


@dataclass(frozen=True, eq=False)
class TrajectoryFile:
    """What was computed of a trajectory.

    Parameters
    ----------
    frame : Frame or None
        Frame after the last segment; None before the first one, and after the last one of a switching trajectory.
    values : tuple of float
        Result of each segment: work or derivative, kJ/mol.
    """

    frame: Frame | None
    values: tuple[float, ...]


def run_window(
    folder: Path, payload: bytes, value: float, replica: int, n_frames: int, *, with_derivatives: bool
) -> None:
    """Sample at one value of the parameter, and write frames ``0000.npz`` or derivatives.

    Parameters
    ----------
    folder : Path
        Folder of this window and replica.
    payload : bytes
        Pickled `Stage`.
    value : float
    replica : int
    n_frames : int
        Number of frames, of which those that exist are not computed again.
    with_derivatives : bool
        Whether each frame is kept as the derivative of the energy with respect to the parameter alone.
    """
    stage = _stage(payload)
    settings = stage.settings
    warm_up = _parts(settings.equilibration_steps, settings.checkpoint_steps)
    pieces = _parts(settings.steps_between_frames, settings.checkpoint_steps)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PROGRESS_NAME

    def segment(k: int, frame: Frame) -> tuple[Frame, float]:
        simulation = _simulation(payload)
        inside = k - len(warm_up)
        steps = warm_up[k] if inside < 0 else pieces[inside % len(pieces)]
        seed = _seed(settings.seed, stage.leg_name, stage.name, value, replica, k)
        after = simulation.sample(frame, seed, value, steps)
        result = math.nan
        if inside >= 0 and (inside + 1) % len(pieces) == 0:
            if with_derivatives:
                result = simulation.derivative()
            else:
                _write(folder / f"{inside // len(pieces):04d}.npz", TrajectoryFile(after, ()))
        return after, result

    start = Frame(stage.leg.positions, None, stage.leg.box_vectors)
    _run(path, start, len(warm_up) + n_frames * len(pieces), segment, keep_last=True)


def window_derivatives(folder: Path, n_frames: int) -> FloatArray | None:
    """Return the derivatives of a window, (n_frames,) kJ/mol, or None if it is not complete."""
    path = folder / PROGRESS_NAME
    values = np.array(read_trajectory(path).values) if path.exists() else np.empty(0)
    # Segments of the equilibration, and between two frames, have none.
    found = values[np.isfinite(values)]
    return found[:n_frames] if len(found) >= n_frames else None


def frames_complete(folder: Path, n_frames: int) -> bool:
    """Return whether a window has its frames."""
    return all((folder / f"{k:04d}.npz").exists() for k in range(n_frames))


def run_switch(path: Path, payload: bytes, start: float, index: int, frame_path: Path) -> None:
    """Switch the parameter from 0 to 1 or from 1 to 0, and write the work.

    Parameters
    ----------
    path : Path
        File of this trajectory.
    payload : bytes
        Pickled `Stage`.
    start : float
        First value of the parameter, 0 or 1.
    index : int
        Number of the trajectory.
    frame_path : Path
        File of the frame from which it starts.
    """
    stage = _stage(payload)
    settings = stage.settings
    parts = _parts(settings.switch_steps, settings.checkpoint_steps)
    before = np.concatenate([[0], np.cumsum(parts)]) / settings.switch_steps
    values = before if start == 0.0 else 1.0 - before
    path.parent.mkdir(parents=True, exist_ok=True)
    first = read_trajectory(frame_path).frame
    if first is None:
        raise RunDirectoryError(f"{frame_path} holds no frame; delete it, and run the correction again")

    def segment(k: int, frame: Frame) -> tuple[Frame, float]:
        seed = _seed(settings.seed, stage.leg_name, stage.name, f"switch{start:g}", index, k)
        return _simulation(payload).switch(frame, seed, float(values[k]), float(values[k + 1]), parts[k], 1)

    _run(path, first, len(parts), segment, keep_last=False)


def switch_work(path: Path) -> float | None:
    """Return the work of a trajectory, kJ/mol, or None if it is not complete."""
    if not path.exists():
        return None
    found = read_trajectory(path)
    return math.fsum(found.values) if found.frame is None else None


def read_trajectory(path: Path) -> TrajectoryFile:
    """Read a file of a trajectory.

    Raises
    ------
    RunDirectoryError
        If it is damaged.
    """
    try:
        with np.load(io.BytesIO(unsealed(path.read_bytes())), allow_pickle=False) as file:
            frame = None
            if "positions" in file.files:
                velocities = file["velocities"] if "velocities" in file.files else None
                frame = Frame(file["positions"], velocities, file["box"] if "box" in file.files else None)
            return TrajectoryFile(frame, tuple(file["values"].tolist()))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(
            f"{path} is damaged: {type(error).__name__}: {error}; delete it to compute this trajectory again"
        ) from error


def forget_simulation() -> None:
    """Let the Simulation of the last task of this thread be freed."""
    _last.__dict__.clear()


def _run(
    path: Path,
    start: Frame,
    count: int,
    segment: Callable[[int, Frame], tuple[Frame, float]],
    *,
    keep_last: bool,
) -> None:
    """Compute the segments of a trajectory that are missing."""
    with task_lock(path.with_name(f".{path.name}.lock")):
        done = read_trajectory(path) if path.exists() else TrajectoryFile(start, ())
        frame, values = done.frame, list(done.values)
        if frame is None:
            return
        while len(values) < count:
            frame, value = segment(len(values), frame)
            if not np.isfinite(frame.positions).all() or math.isinf(value):
                raise NonFiniteError(
                    f"{path.parent.name}/{path.stem}: positions or work are not finite after segment {len(values)}; "
                    "take a smaller step_size, and check the structure"
                )
            values.append(value)
            ended = len(values) == count and not keep_last
            _write(path, TrajectoryFile(None if ended else frame, tuple(values)))


def _write(path: Path, content: TrajectoryFile) -> None:
    arrays = {"values": np.array(content.values, dtype=float)}
    if content.frame is not None:
        arrays["positions"] = content.frame.positions
        for name, array in (("velocities", content.frame.velocities), ("box", content.frame.box)):
            if array is not None:
                arrays[name] = array
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # NumPy's stub has the keyword allow_pickle first
    replace_file(path, sealed(buffer.getvalue()))


def _parts(steps: int, longest: int) -> Sequence[int]:
    """Return the numbers of steps of segments that are at most so long."""
    return [min(longest, steps - k) for k in range(0, steps, longest)]


def _seed(*parts: object) -> int:
    """Return a seed that OpenMM takes, and for which zero has another meaning."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % LARGEST_SEED + 1


def _stage(payload: bytes) -> Stage:
    _load(payload)
    found: Stage = _last.stage
    return found


def _simulation(payload: bytes) -> SegmentSimulation:
    _load(payload)
    if _last.simulation is None:
        stage: Stage = _last.stage
        settings = stage.settings
        _last.simulation = SegmentSimulation(
            stage.create(),
            PARAMETER,
            temperature=settings.temperature,
            friction=settings.friction,
            step_size=settings.step_size,
            platform=settings.platform,
        )
    found: SegmentSimulation = _last.simulation
    return found


def _load(payload: bytes) -> None:
    digest = hashlib.sha256(payload).digest()
    if vars(_last).get("digest") != digest:
        _last.digest, _last.stage, _last.simulation = digest, pickle.loads(payload), None
