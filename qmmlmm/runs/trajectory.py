"""The trajectory of a run: DCD or XTC files that can be cut at a frame and continued."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import openmm
from openmm import app, unit

from qmmlmm.durable_files import full_disk_error, naming_full_disk
from qmmlmm.errors import OutputFileError
from qmmlmm.runs.reporters import NextReport, check_finite, checked_interval, steps_to_next

FORMATS = ("dcd", "xtc")

DCD_FRAME_COUNT_OFFSET = 8
DCD_LAST_STEP_OFFSET = 20
DCD_COMMENTS_OFFSET = 92
XTC_HEADER_BYTES = 52
XTC_MOST_UNCOMPRESSED_ATOMS = 9


class TrajectoryReporter:
    """Writes frames through OpenMM's DCDFile or XTCFile, so that they are on disk before a checkpoint.

    OpenMM's reporters do not give access to their files, and write the wrong first step for a run that does not begin
    at step zero.

    Parameters
    ----------
    path : Path
        Path with the ending ``.dcd`` or ``.xtc``; the file must not exist unless `append` is set.
    report_interval : int
        Number of steps between frames, the same for the whole file.
    first_step : int
        Step at which the run began; the first frame is at the next multiple of the interval.
    append : bool
        Whether to continue a file from `cut_trajectory`.
    """

    def __init__(self, path: Path, report_interval: int, *, first_step: int = 0, append: bool = False) -> None:
        self._interval = checked_interval("report_interval", report_interval)
        self._path = path
        self._first_frame_step = (first_step // self._interval + 1) * self._interval
        self._append = append
        self._format = trajectory_format(path)
        self._writer: Any = None
        self._file: BinaryIO | None = None
        if self._format == "dcd":
            self._file = path.open("r+b" if append else "xb")

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the next frame is due."""
        steps = steps_to_next(self._interval, simulation)
        return {"steps": steps, "periodic": None, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one frame."""
        if self._writer is None:
            kind, target = (app.DCDFile, self._file) if self._format == "dcd" else (app.XTCFile, str(self._path))
            self._writer = kind(
                target,
                simulation.topology,
                simulation.integrator.getStepSize(),
                self._first_frame_step,
                self._interval,
                self._append,
            )
        start = self._path.stat().st_size if self._format == "xtc" and self._path.exists() else 0
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        check_finite("positions", positions, simulation.currentStep)
        with naming_full_disk(self._path):
            self._writer.writeModel(positions, periodicBoxVectors=state.getPeriodicBoxVectors())
        if self._format == "xtc":
            self._check_written(start)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _check_written(self, start: int) -> None:
        # OpenMM's XTC writer does not check whether its bytes were written.
        size = self._path.stat().st_size
        with open(self._path, "rb") as file:
            end = _xtc_frame_end(file, start, size)
        if end != size:
            raise full_disk_error(self._path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def trajectory_format(path: Path) -> str:
    """Return ``"dcd"`` or ``"xtc"`` from the ending of a file name."""
    ending = path.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise OutputFileError(f"trajectories are {' or '.join(FORMATS)} files, got {path.name!r}")
    return ending


def cut_trajectory(path: Path, n_frames: int, n_atoms: int) -> None:
    """Keep the first frames of a trajectory and remove the rest, including an incomplete last frame.

    Parameters
    ----------
    path : Path
        DCD or XTC file; removed if no frame is kept.
    n_frames : int
        Number of frames to keep.
    n_atoms : int
        Number of atoms of each frame.

    Raises
    ------
    OutputFileError
        If the file is damaged, of other atoms, or has fewer frames.
    """
    kind = trajectory_format(path)
    if n_frames == 0:
        path.unlink(missing_ok=True)
        return
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        raise _too_short(path, 0, n_frames) from None
    with file:
        if kind == "dcd":
            _cut_dcd(file, path, n_frames, n_atoms)
        else:
            _cut_xtc(file, path, n_frames, n_atoms)
        file.flush()
        os.fsync(file.fileno())


def _too_short(path: Path, found: int, expected: int) -> OutputFileError:
    return OutputFileError(
        f"{path} has {found} whole frames, the checkpoint needs {expected}; restore the whole file, or "
        "remove checkpoint.chk and state.xml to resume from the previous checkpoint"
    )


def _integers(file: BinaryIO, offset: int, count: int, order: str) -> tuple[int, ...]:
    file.seek(offset)
    data = file.read(4 * count)
    return struct.unpack(f"{order}{count}i", data) if len(data) == 4 * count else (0,) * count


def _cut_dcd(file: BinaryIO, path: Path, n_frames: int, n_atoms: int) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(8)
    if head[4:] != b"CORD":
        raise OutputFileError(f"{path} is no DCD file as OpenMM writes it, it begins with {head!r}")
    (comments,) = _integers(file, DCD_COMMENTS_OFFSET, 1, "<")
    (found_atoms,) = _integers(file, DCD_COMMENTS_OFFSET + 12 + comments, 1, "<")
    if found_atoms != n_atoms:
        raise OutputFileError(f"{path} has {found_atoms} atoms, the topology {n_atoms}")
    start = DCD_COMMENTS_OFFSET + comments + 20
    (has_box,) = _integers(file, 48, 1, "<")
    frame = (56 if has_box else 0) + 3 * (8 + 4 * n_atoms)
    whole = max(0, size - start) // frame
    if whole < n_frames:
        raise _too_short(path, whole, n_frames)
    first, interval = _integers(file, DCD_FRAME_COUNT_OFFSET + 4, 2, "<")
    file.truncate(start + n_frames * frame)
    file.seek(DCD_FRAME_COUNT_OFFSET)
    file.write(struct.pack("<i", n_frames))
    file.seek(DCD_LAST_STEP_OFFSET)
    file.write(struct.pack("<i", first + (n_frames - 1) * interval))


def _cut_xtc(file: BinaryIO, path: Path, n_frames: int, n_atoms: int) -> None:
    size = file.seek(0, os.SEEK_END)
    end = 0
    for frame in range(n_frames):
        if size - end >= XTC_HEADER_BYTES and _integers(file, end, 2, ">")[1] != n_atoms:
            raise OutputFileError(
                f"{path} has {_integers(file, end, 2, '>')[1]} atoms in frame {frame}, the topology {n_atoms}"
            )
        following = _xtc_frame_end(file, end, size)
        if following is None:
            raise _too_short(path, frame, n_frames)
        end = following
    file.truncate(end)


def _xtc_frame_end(file: BinaryIO, start: int, size: int) -> int | None:
    """Return the end of an XTC frame, or None if the frame is incomplete.

    Notes
    -----
    Source: the format as the GROMACS manual describes it (XDR, big-endian): 52 bytes of magic number, atoms,
    step, time and box; the number of atoms again; then bare coordinates for up to nine atoms, or the
    precision, two corners, an index and the number of bytes, padded to four.
    """
    if size - start < XTC_HEADER_BYTES + 4:
        return None
    magic, n_atoms = _integers(file, start, 2, ">")
    if magic not in (1995, 2023):
        raise OutputFileError(f"no XTC frame begins at byte {start}: magic number {magic}, expected 1995")
    data = start + XTC_HEADER_BYTES + 4
    if n_atoms <= XTC_MOST_UNCOMPRESSED_ATOMS:
        end = data + 12 * n_atoms
    else:
        data += 32
        # Files of more than 2^31 bytes per frame count them in eight bytes.
        width = 1 if magic == 1995 else 2
        if size < data + 4 * width:
            return None
        words = _integers(file, data, width, ">")
        count = words[0] if width == 1 else (words[0] << 32) | (words[1] & 0xFFFFFFFF)
        end = data + 4 * width + (count + 3) // 4 * 4
    return end if end <= size else None
