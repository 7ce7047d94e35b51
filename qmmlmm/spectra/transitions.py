"""Vertical excitations of a region at many snapshots, in its surroundings and without them."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qmmlmm.coupling.state_results import StateResults
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.errors import EvaluationError, TransitionsError
from qmmlmm.geometry import Geometry
from qmmlmm.setting_checks import check_array, check_callable, check_flag, check_instance, check_items, check_path
from qmmlmm.units import HARTREE_IN_EV, FloatArray

RECORD_VERSION = 1
COLUMNS = ("geometry", "surroundings", "state", "energy_ev", "oscillator_strength")


@dataclass(frozen=True)
class Transitions:
    """Excitations from the ground state.

    Parameters
    ----------
    energies : (frames, states) float array, eV
    strengths : (frames, states) float array
        Oscillator strengths.
    vacuum_energies, vacuum_strengths : (frames, states) float arrays, optional
        Values at the same geometries without surroundings.

    Raises
    ------
    TransitionsError
        If the arrays differ in shape, are empty, or are not finite.
    """

    energies: FloatArray
    strengths: FloatArray
    vacuum_energies: FloatArray | None = None
    vacuum_strengths: FloatArray | None = None

    def __post_init__(self) -> None:
        if (self.vacuum_energies is None) != (self.vacuum_strengths is None):
            raise TransitionsError("vacuum_energies and vacuum_strengths are given both or not at all")
        shape = None
        for name, value in vars(self).items():
            if value is not None or not name.startswith("vacuum"):
                array = check_array(name, value, (None, None) if shape is None else shape, error=TransitionsError)
                if not array.size:
                    raise TransitionsError(f"{name} has no excitation: its shape is {array.shape}")
                shape = array.shape
                object.__setattr__(self, name, array)

    def shifts(self) -> FloatArray:
        """Return the shift of each excitation by the surroundings, (frames, states) eV.

        Raises
        ------
        TransitionsError
            If the geometries were not computed without surroundings.
        """
        if self.vacuum_energies is None:
            raise TransitionsError("there are no excitations without surroundings; compute them with vacuum=True")
        return self.energies - self.vacuum_energies


def compute_transitions(
    term: EvaluatedTerm,
    frames: Iterable[Geometry],
    *,
    vacuum: bool = True,
    executor: Executor | None = None,
    record: str | os.PathLike[str] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Transitions:
    """Return the excitations of a region at snapshots.

    Parameters
    ----------
    term : EvaluatedTerm
        Term from `MixedSystem.evaluated_term` with a potential with excited states. With mechanical embedding there are
        no shifts.
    frames : iterable of Geometry, nm
        Positions of all particles.
    vacuum : bool
        Whether to compute each geometry also without surroundings.
    executor : concurrent.futures.Executor, optional
        Executor that computes the frames in parallel; they are computed one after another in this process if not given.
    record : path, optional
        CSV file to which each frame is added when it is complete. Geometries of an existing file are not repeated.
    progress : callable, optional
        Function that is called with the number of complete frames after each frame.

    Raises
    ------
    SettingError
        If an argument has another type, or a snapshot another number of particles.
    TransitionsError
        If there are no frames, the potential has no excited states, or the record belongs to other settings or is
        damaged.
    EvaluationError
        If a calculation fails; the message names the frame.
    """
    check_instance("term", term, EvaluatedTerm, "an EvaluatedTerm, such as mixed.evaluated_term('dye/QM')")
    geometries = list(check_items("frames", frames, Geometry, empty=True))
    if not geometries:
        raise TransitionsError("there are no snapshots: frames is empty")
    for index, geometry in enumerate(geometries):
        check_array(f"positions of snapshot {index}", geometry.positions, (term.layout.n_particles, 3))
        if term.layout.periodic and geometry.box is None:
            raise TransitionsError(f"snapshot {index} has no box, and the System is periodic")
    check_flag("vacuum", vacuum)
    if executor is not None:
        check_instance("executor", executor, Executor, "a concurrent.futures.Executor")
    if record is not None:
        check_path("record", record)
    if progress is not None:
        check_callable("progress", progress)
    done: dict[int, FloatArray] = {}
    names = [_digest(geometry) for geometry in geometries]
    journal = None if record is None else _Journal(Path(record), _identity(term, vacuum))
    if journal is not None:
        known = journal.read(2 if vacuum else 1)
        done = {index: known[name] for index, name in enumerate(names) if name in known}
    waiting = [index for index in range(len(geometries)) if index not in done]
    for index, rows in _computed(term, geometries, waiting, vacuum, executor):
        done[index] = rows
        if journal is not None:
            journal.add(names[index], rows)
        if progress is not None:
            progress(len(done))
    # (frames, 1 or 2, 2, states): surroundings or vacuum, energy or strength
    table = np.array([done[index] for index in range(len(geometries))])
    bare = (table[:, 1, 0], table[:, 1, 1]) if vacuum else (None, None)
    return Transitions(table[:, 0, 0], table[:, 0, 1], *bare)


def _computed(
    term: EvaluatedTerm,
    geometries: list[Geometry],
    waiting: list[int],
    vacuum: bool,
    executor: Executor | None,
) -> Iterator[tuple[int, FloatArray]]:
    if executor is None:
        for index in waiting:
            yield index, _named(functools.partial(transitions_of, term, geometries[index], vacuum), index)
        return
    futures: dict[Future[FloatArray], int] = {}
    try:
        for index in waiting:
            futures[executor.submit(transitions_of, term, geometries[index], vacuum)] = index
        while futures:
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                index = futures.pop(future)
                yield index, _named(future.result, index)
    finally:
        for future in futures:
            future.cancel()


def _named(result: Callable[[], FloatArray], index: int) -> FloatArray:
    try:
        return result()
    except EvaluationError as error:
        raise EvaluationError(f"snapshot {index} (counted from 0): {error}") from error


def transitions_of(term: EvaluatedTerm, geometry: Geometry, vacuum: bool) -> FloatArray:
    """Return excitation energies (eV) and oscillator strengths of one snapshot, (1 or 2, 2, states).

    Parameters
    ----------
    term : EvaluatedTerm
    geometry : Geometry, nm
        Positions of all particles.
    vacuum : bool
        Whether to add the same geometry without surroundings.
    """
    bohr = geometry.in_bohr()
    field = term.field_at(bohr)
    evaluator = term.potential.create_evaluator(term.layout.specification)
    region = term.region_geometry(bohr)
    rows = [_row(evaluator.excitations(region, None if field is None else field.external_field()), term.name)]
    if vacuum:
        rows.append(rows[0] if field is None else _row(evaluator.excitations(region, None), term.name))
    return np.array(rows)


def _row(states: StateResults | None, name: str) -> FloatArray:
    if states is None or states.oscillator_strengths is None:
        raise TransitionsError(
            f"term {name!r} reports no oscillator strengths; take a potential with excited states, such as "
            'PySCFPotential("b3lyp", "6-31g*", excited=TDA(n_states=3))'
        )
    energies, strengths = states.state_energies, states.oscillator_strengths
    return np.array([(energies[1:] - energies[0]) * HARTREE_IN_EV, strengths[1:]])


def _identity(term: EvaluatedTerm, vacuum: bool) -> str:
    settings = {"potential": repr(term.potential), "region": repr(term.layout.specification), "vacuum": vacuum}
    charges = term.layout.surroundings
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(b"" if charges is None else charges.source_charges.tobytes())
    return digest.hexdigest()


def _digest(geometry: Geometry) -> str:
    bohr = geometry.in_bohr()
    digest = hashlib.sha256(np.round(bohr.positions, 6).tobytes())
    digest.update(b"no box" if bohr.box is None else np.round(bohr.box, 6).tobytes())
    return digest.hexdigest()[:16]


class _Journal:
    """The CSV file of complete frames; its first line identifies the calculation."""

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._header = f"# transitions {RECORD_VERSION} {identity}\n"
        head = self._header + ",".join(COLUMNS) + "\n"
        # A process that was killed early may have written a part of the head.
        if not path.exists() or (len(text := self._text()) < len(head) and head.startswith(text)):
            try:
                path.write_text(head, encoding="utf-8", newline="")
            except OSError as error:
                raise TransitionsError(f"the record {path} cannot be written: {error}") from error

    def read(self, n_rows: int) -> dict[str, FloatArray]:
        """Return the complete frames, and remove incomplete ones from the file."""
        text = self._text()
        lines = text.splitlines(keepends=True)
        if not lines or lines[0] != self._header:
            raise TransitionsError(
                f"{self._path} belongs to another method, another region or another force field; give another file, "
                "or delete it"
            )
        found: dict[str, dict[tuple[int, int], tuple[float, float]]] = {}
        whole = [line for line in lines[2:] if line.endswith("\n")]
        for number, row in enumerate(csv.reader(whole), start=3):
            try:
                frame, surroundings, state, energy, strength = row
                found.setdefault(frame, {})[int(surroundings), int(state)] = (float(energy), float(strength))
            except ValueError as error:
                raise TransitionsError(
                    f"line {number} of {self._path} is damaged: {','.join(row)[:80]!r}; delete that line, and its "
                    "snapshot is computed again"
                ) from error
        states = max((state for rows in found.values() for _, state in rows), default=0)
        expected = {(surroundings, state) for surroundings in range(2 - n_rows, 2) for state in range(1, states + 1)}
        for frame, rows in found.items():
            if not set(rows) <= expected:
                raise TransitionsError(f"{self._path} is damaged: snapshot {frame} has states that do not exist")
        kept = {frame: rows for frame, rows in found.items() if len(rows) == n_rows * states}
        if len(kept) < len(found) or len(whole) < len(lines) - 2:
            part = self._path.with_name(self._path.name + ".part")
            tables = [_lines(frame, _table(rows, n_rows, states)) for frame, rows in kept.items()]
            part.write_text(self._header + ",".join(COLUMNS) + "\n" + "".join(tables), encoding="utf-8", newline="")
            part.replace(self._path)
        return {frame: _table(rows, n_rows, states) for frame, rows in kept.items()}

    def _text(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TransitionsError(f"{self._path} is no record of transitions: {error}") from error

    def add(self, frame: str, rows: FloatArray) -> None:
        """Write a frame to the disk."""
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_lines(frame, rows))
            file.flush()
            os.fsync(file.fileno())


def _table(rows: dict[tuple[int, int], tuple[float, float]], n_rows: int, states: int) -> FloatArray:
    return np.array(
        [
            [[rows[1 - row, state][column] for state in range(1, states + 1)] for column in (0, 1)]
            for row in range(n_rows)
        ]
    )


def _lines(frame: str, rows: FloatArray) -> str:
    return "".join(
        f"{frame},{1 - row},{state + 1},{rows[row, 0, state]:.10g},{rows[row, 1, state]:.10g}\n"
        for row in range(len(rows))
        for state in range(rows.shape[2])
    )
