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
from openmm import unit

from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.errors import EvaluationError, QmmlmmError
from qmmlmm.units import HARTREE_IN_EV, NM_IN_BOHR, FloatArray, in_unit

RECORD_VERSION = 1
COLUMNS = ("geometry", "surroundings", "state", "energy_ev", "oscillator_strength")


class TransitionsError(QmmlmmError):
    """Snapshots, states or a record of them that do not fit together."""


@dataclass(frozen=True)
class Transitions:
    """Excitations from the ground state.

    Parameters
    ----------
    energies : (frames, states) float array, eV
    strengths : (frames, states) float array
        Oscillator strengths.
    vacuum_energies, vacuum_strengths : (frames, states) float arrays, optional
        Of the same geometries without surroundings.
    """

    energies: FloatArray
    strengths: FloatArray
    vacuum_energies: FloatArray | None = None
    vacuum_strengths: FloatArray | None = None

    def shifts(self) -> FloatArray:
        """Return what the surroundings add to each excitation, (frames, states) eV.

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
    frames: Iterable[tuple[object, object]],
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
        From `MixedSystem.evaluated_term`, of a potential with excited states. Without embedding the surroundings
        shift nothing.
    frames : iterable of (positions, box vectors)
        (n_particles, 3) and (3, 3) Quantity or float arrays, nm; the box is None without periodicity.
    vacuum : bool
        Whether each geometry is also computed without surroundings.
    executor : concurrent.futures.Executor, optional
        Computes the frames side by side; in this process, one after another, by default.
    record : path, optional
        CSV file to which each frame is added as soon as it is there. A file that is there already is read first, and
        geometries that are in it are not computed again.
    progress : callable, optional
        Called with the number of frames that are done, after each.

    Raises
    ------
    TransitionsError
        If a potential has no excited states, or the record belongs to other settings.
    EvaluationError
        If a calculation fails; the message names the frame.
    """
    places = [(_bohr(positions), np.eye(3) if box is None else _bohr(box)) for positions, box in frames]
    if not places:
        raise TransitionsError("there are no snapshots")
    done: dict[int, FloatArray] = {}
    names = [_geometry(*place) for place in places]
    journal = None if record is None else _Journal(Path(record), _identity(term, vacuum))
    if journal is not None:
        known = journal.read(2 if vacuum else 1)
        done = {index: known[name] for index, name in enumerate(names) if name in known}
    waiting = [index for index in range(len(places)) if index not in done]
    for index, rows in _computed(term, places, waiting, vacuum, executor):
        done[index] = rows
        if journal is not None:
            journal.add(names[index], rows)
        if progress is not None:
            progress(len(done))
    # (frames, 1 or 2, 2, states): surroundings or vacuum, energy or strength
    table = np.array([done[index] for index in range(len(places))])
    bare = (table[:, 1, 0], table[:, 1, 1]) if vacuum else (None, None)
    return Transitions(table[:, 0, 0], table[:, 0, 1], *bare)


def _bohr(lengths: object) -> FloatArray:
    return np.array(in_unit(lengths, unit.nanometer), dtype=float) * NM_IN_BOHR


def _computed(
    term: EvaluatedTerm,
    places: list[tuple[FloatArray, FloatArray]],
    waiting: list[int],
    vacuum: bool,
    executor: Executor | None,
) -> Iterator[tuple[int, FloatArray]]:
    if executor is None:
        for index in waiting:
            yield index, _named(functools.partial(transitions_of, term, *places[index], vacuum), index)
        return
    futures: dict[Future[FloatArray], int] = {}
    try:
        for index in waiting:
            futures[executor.submit(transitions_of, term, *places[index], vacuum)] = index
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


def transitions_of(term: EvaluatedTerm, positions: FloatArray, box: FloatArray, vacuum: bool) -> FloatArray:
    """Return excitation energies (eV) and oscillator strengths of one snapshot, (1 or 2, 2, states).

    Parameters
    ----------
    term : EvaluatedTerm
    positions : (n_particles, 3) float array, bohr
    box : (3, 3) float array, bohr
    vacuum : bool
        Adds the same geometry without surroundings.
    """
    if term.layout.surroundings is None:
        term.forget()
        term.compute(positions, box)
        assert term.last is not None
        return np.array([_row(term.last.results, term.name)] * (2 if vacuum else 1))
    evaluator = term.potential.create_evaluator(term.layout.specification)
    # Forces are not needed; an evaluator that cannot do without computes them.
    compute = getattr(evaluator, "excitations", lambda *place: evaluator.evaluate(*place).results)
    sites, field = term.external_field(positions, box)
    fields = [field, None] if vacuum else [field]
    return np.array([_row(compute(sites, each), term.name) for each in fields])


def _row(results: dict[str, object], name: str) -> FloatArray:
    if "oscillator_strengths" not in results:
        raise TransitionsError(
            f"term {name!r} reports no oscillator strengths; take a potential with excited states, such as "
            'PySCFPotential("b3lyp", "6-31g*", excited=TDA(n_states=3))'
        )
    energies = np.asarray(results["state_energies"], dtype=float)
    strengths = np.asarray(results["oscillator_strengths"], dtype=float)
    return np.array([(energies[1:] - energies[0]) * HARTREE_IN_EV, strengths[1:]])


def _identity(term: EvaluatedTerm, vacuum: bool) -> str:
    settings = {"potential": repr(term.potential), "region": repr(term.layout.specification), "vacuum": vacuum}
    charges = term.layout.surroundings
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(b"" if charges is None else charges.source_charges.tobytes())
    return digest.hexdigest()


def _geometry(positions: FloatArray, box: FloatArray) -> str:
    digest = hashlib.sha256(np.round(positions, 6).tobytes())
    digest.update(np.round(box, 6).tobytes())
    return digest.hexdigest()[:16]


class _Journal:
    """The CSV file of frames that are done; the first line says whose they are."""

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._header = f"# transitions {RECORD_VERSION} {identity}\n"
        head = self._header + ",".join(COLUMNS) + "\n"
        # A process that died at once may have left a part of the head.
        if not path.exists() or (len(text := path.read_text(encoding="utf-8")) < len(head) and head.startswith(text)):
            path.write_text(head, encoding="utf-8", newline="")

    def read(self, n_rows: int) -> dict[str, FloatArray]:
        """Return the frames that are complete, and cut off one that is not."""
        text = self._path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        if not lines or lines[0] != self._header:
            raise TransitionsError(
                f"{self._path} is of another method, another region or another force field; give another file, or "
                "delete it"
            )
        found: dict[str, dict[tuple[int, int], tuple[float, float]]] = {}
        whole = [line for line in lines[2:] if line.endswith("\n")]
        for frame, surroundings, state, energy, strength in csv.reader(whole):
            found.setdefault(frame, {})[int(surroundings), int(state)] = (float(energy), float(strength))
        states = max((state for rows in found.values() for _, state in rows), default=0)
        kept = {frame: rows for frame, rows in found.items() if len(rows) == n_rows * states}
        if len(kept) < len(found) or len(whole) < len(lines) - 2:
            part = self._path.with_name(self._path.name + ".part")
            tables = [_lines(frame, _table(rows, n_rows, states)) for frame, rows in kept.items()]
            part.write_text(self._header + ",".join(COLUMNS) + "\n" + "".join(tables), encoding="utf-8", newline="")
            part.replace(self._path)
        return {frame: _table(rows, n_rows, states) for frame, rows in kept.items()}

    def add(self, frame: str, rows: FloatArray) -> None:
        """Write a frame, and see that it is on the disk."""
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
