"""When the report of a run is written: at checkpoints, as often as it costs little, and at the end."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import HamiltonianError, PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.runs.report.hamiltonian_picture import mappings, pairs
from qmmlmm.runs.report.harmless import harmless
from qmmlmm.runs.report.run_report import REPORT_NAME, RunFacts, write_run_report
from qmmlmm.runs.reporters import MixedSystemLike, uses_periodic_box
from qmmlmm.runs.run_record import RunRecord

LARGEST_SHARE = 0.02
"""Share of the wall time that reports at checkpoints may take."""


@runtime_checkable
class HasUncertainty(Protocol):
    """The part of a `MixedSystem` that knows the uncertainty of a committee."""

    def force_uncertainty(self, context: openmm.Context, name: str) -> unit.Quantity:
        """Return the expected error of the force on each atom of a region, kJ/(mol nm)."""
        ...


class ReportWriter:
    """Writes the report of a run; a failure to do so is a warning and never ends the run.

    Parameters
    ----------
    folder : Path
    mixed : MixedSystem
    simulation : app.Simulation
        Simulation at the first step of this session.
    record : RunRecord
        Record of the run, whose last session is this one.
    total_steps : int
    continue_with : str or None
        See `RunFacts`.
    """

    def __init__(
        self,
        folder: Path,
        mixed: MixedSystemLike,
        simulation: app.Simulation,
        record: RunRecord,
        *,
        total_steps: int,
        continue_with: str | None,
    ) -> None:
        self._folder, self._mixed, self._record = folder, mixed, record
        self._description = mixed.describe()
        self._total_steps, self._continue_with = total_steps, continue_with
        self._start = (time.perf_counter(), simulation.currentStep)
        self._spent = 0.0
        self._failed = False
        self._committees = self._ml_terms() if isinstance(mixed, HasUncertainty) else []
        self._uncertainties: dict[str, list[tuple[float, float, float]]] = {}

    def write_if_cheap(self, simulation: app.Simulation) -> None:
        """Write the report if all reports of this session take less than 2 % of its time."""
        if self._spent <= LARGEST_SHARE * (time.perf_counter() - self._start[0]):
            self.write(simulation)

    def write(self, simulation: app.Simulation, failure: BaseException | None = None) -> None:
        """Write the report; a failure is a warning.

        Parameters
        ----------
        simulation : app.Simulation
        failure : BaseException, optional
            Error that ended the run.
        """
        begin = time.perf_counter()
        if failure is None and not self._failed:
            with harmless(self._folder / REPORT_NAME):
                self._failed = True
                self._write(simulation, failure)
                self._failed = False
        else:
            # One warning is enough, and of a run that failed the error counts, which is raised after this.
            with contextlib.suppress(Exception):
                self._write(simulation, failure)
                self._failed = False
        self._spent += time.perf_counter() - begin

    def _write(self, simulation: app.Simulation, failure: BaseException | None) -> None:
        wall = time.perf_counter() - self._start[0]
        state = simulation.context.getState(positions=True)
        now = state.getTime().value_in_unit(unit.picosecond)
        if failure is None:
            self._add_uncertainties(simulation.context, now)
        facts = RunFacts(
            folder=self._folder,
            description=self._description,
            session=self._record.sessions[-1],
            integrator=dict(pairs(self._record.identity.get("integrator"))),
            counts=self._mixed.summary(),
            steps=simulation.currentStep - self._record.first_step,
            time=now,
            total_steps=self._total_steps,
            wall_seconds=wall,
            session_steps=simulation.currentStep - self._start[1],
            uncertainties={name: np.array(rows) for name, rows in self._uncertainties.items()},
            continue_with=self._continue_with,
            failure="" if failure is None else f"{type(failure).__name__}: {failure}".removesuffix(": "),
        )
        write_run_report(facts, simulation.topology, Geometry.from_state(state, uses_periodic_box(simulation)))

    def _ml_terms(self) -> list[str]:
        return [str(term["name"]) for term in mappings(self._description.get("terms")) if term.get("level") == "ML"]

    def _add_uncertainties(self, context: openmm.Context, now: float) -> None:
        """Add the uncertainty at the present positions for each term that is a committee."""
        if not isinstance(self._mixed, HasUncertainty):
            return
        for name in list(self._committees):
            try:
                found = self._mixed.force_uncertainty(context, name)
            except (PotentialError, HamiltonianError):  # a model without members
                self._committees.remove(name)
                continue
            values = np.asarray(found.value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
            self._uncertainties.setdefault(name, []).append((now, float(values.mean()), float(values.max())))
