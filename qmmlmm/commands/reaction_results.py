"""Results of the commands of a reaction: a folder for each, where the later commands find them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from openmm import unit

from qmmlmm.commands.reaction_input import ReactionInput
from qmmlmm.coupling.potential import RegionPotential
from qmmlmm.durable_files import checksum, replace_file
from qmmlmm.errors import RunDirectoryError, listed
from qmmlmm.reactions import Structure
from qmmlmm.reactions.calculation_files import read_arrays, write_arrays
from qmmlmm.runs.provenance import hash_system, package_versions
from qmmlmm.runs.report.calculation_report import write_calculation_report
from qmmlmm.units import FloatArray

RECORD = "record.json"
ARRAYS = "structure.npz"
ENERGY = unit.kilojoule_per_mole

Results = dict[str, object]
"""Results by their names with units, in the order in which people read them."""


class ResultFolder:
    """The folder of one command.

    Parameters
    ----------
    given : ReactionInput
    command : str
        Its name, which the folder has too.
    """

    def __init__(self, given: ReactionInput, command: str) -> None:
        self._given = given
        self.command = command
        self.path: Path = given.directory / command

    def structure(self) -> Structure | None:
        """Return the structure that the command left; None if it has not ended.

        Raises
        ------
        RunDirectoryError
            If it was computed with another [system], [term] or [moving] than the file has now, or is damaged.
        """
        record = self._record()
        if record is None:
            return None
        self._check_same(record)
        arrays = self.arrays()
        box = None if "box" not in arrays else arrays["box"] * unit.nanometer
        return Structure(
            self._given.start.topology,
            arrays["positions"] * unit.nanometer,
            box,
            float(arrays["energy"]) * ENERGY,
            tuple(int(k) for k in arrays["atoms"]),
            tuple(int(k) for k in arrays["hold"]),
        )

    def arrays(self) -> dict[str, FloatArray]:
        """Return the arrays that the command left.

        Raises
        ------
        RunDirectoryError
            If they are missing or damaged.
        """
        found = read_arrays(self.path / ARRAYS)
        if found is None:
            raise RunDirectoryError(
                f"{self.path / ARRAYS} is missing or damaged; delete {self.path} and run qmmlmm {self.command} again"
            )
        return found

    def kept(self, start: Structure | FloatArray | None, settings: Mapping[str, object]) -> Results | None:
        """Return the results of the same calculation if it has ended; None if not.

        Parameters
        ----------
        start : Structure or (n_particles, 3) float array, nm; or None
        settings : mapping of str to object
            What else they depend on.
        """
        record = self._record()
        same = record is not None and record["calculation"] == self._identity(start, settings)
        return self.results() if same else None

    def results(self) -> Results | None:
        """Return the results of the command; None if it has not ended."""
        record = self._record()
        if record is None:
            return None
        results = record["results"]
        assert isinstance(results, dict)
        return results

    def keep(
        self,
        structure: Structure,
        results: Results,
        start: Structure | FloatArray | None,
        settings: Mapping[str, object],
        more: Mapping[str, FloatArray] | None = None,
    ) -> None:
        """Keep a structure, results and what they belong to.

        Parameters
        ----------
        structure : Structure
        results : dict of str to object
        start, settings
            As in `kept`.
        more : mapping of str to float array, optional
            Other arrays.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, FloatArray | float] = {
            "positions": np.asarray(structure.positions.value_in_unit(unit.nanometer)),
            "energy": structure.energy.value_in_unit(ENERGY),
            "atoms": np.array(structure.atoms),
            "hold": np.array(structure.hold),
            **(more or {}),
        }
        if structure.box_vectors is not None:
            arrays["box"] = np.asarray(structure.box_vectors.value_in_unit(unit.nanometer))
        write_arrays(self.path / ARRAYS, arrays)
        self.keep_results(results, start, settings)

    def keep_results(
        self, results: Results, start: Structure | FloatArray | None, settings: Mapping[str, object]
    ) -> None:
        """Keep results and what they belong to, as `keep`, of a command that leaves no structure to start from."""
        self.path.mkdir(parents=True, exist_ok=True)
        record = {
            "command": self.command,
            "versions": package_versions(),
            "input": self._given.content.content(),
            "calculation": self._identity(start, settings),
            "results": results,
        }
        replace_file(self.path / RECORD, json.dumps(record, indent=1, default=str).encode())
        write_calculation_report(
            self.path,
            f"qmmlmm {self.command}",
            results,
            self._given.mixed.describe(),
            f"qmmlmm {self.command} {self._given.path}",
        )

    def _record(self) -> dict[str, object] | None:
        path = self.path / RECORD
        if not path.is_file():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise RunDirectoryError(f"{path} is damaged ({error}); delete {self.path}") from error

    def _check_same(self, record: Mapping[str, object]) -> None:
        known, now = record["calculation"], self._identity(None, {})
        assert isinstance(known, dict)
        changed = [f"[{name}]" for name in ("system", "term", "moving") if known[name] != now[name]]
        if changed:
            raise RunDirectoryError(
                f"{self.path} was computed with another {listed(changed)} than {self._given.path} has now; choose "
                f"another directory, or delete {self.path} and run qmmlmm {self.command} again"
            )

    def _identity(self, start: Structure | FloatArray | None, settings: Mapping[str, object]) -> dict[str, object]:
        positions = start.positions.value_in_unit(unit.nanometer) if isinstance(start, Structure) else start
        moving = self._given.moving
        found = {
            "system": hash_system(self._given.start.system),
            "term": self._given.mixed.describe()["terms"],
            "moving": {"atoms": moving.atoms, "hold": moving.hold, "relax": moving.relax},
            "start": None if positions is None else checksum(np.ascontiguousarray(positions, dtype=float).tobytes()),
            **settings,
        }
        # As it is read back from the file.
        return dict(json.loads(json.dumps(found, default=repr)))


def level_name(potential: RegionPotential) -> str:
    """Return a name for files of a level, with what identifies its settings."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", potential.method_name).strip("-")
    return f"{plain}_{checksum(repr(potential))[:8]}"
