"""QM where the committee is unsure: a parameter follows the uncertainty, and the energy that this costs is booked."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import HamiltonianError, listed, nearest
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.units import in_unit

COLUMNS = ("Step", "Uncertainty (kJ/mol/nm)", "Share of QM", "Level", "Booked Work (kJ/mol)")


@dataclass(frozen=True)
class Decision:
    """What gave the forces of a stretch of steps.

    Parameters
    ----------
    step : int
        First step of the stretch.
    uncertainty : float, kJ/(mol nm)
        At its first geometry.
    share : float
        Value of the parameter: 0 is ML, 1 is QM.
    work : Quantity, kJ/mol
        Done so far by all changes of the parameter.
    """

    step: int
    uncertainty: float
    share: float
    work: unit.Quantity

    @property
    def level(self) -> str:
        """``"ML"``, ``"QM"`` or ``"ML to QM"`` while one is handed over to the other."""
        return {0.0: "ML", 1.0: "QM"}.get(self.share, "ML to QM")


class AdaptiveCorrection:
    """Runs a simulation and lets QM correct ML while a committee is unsure about its forces.

    Parameters
    ----------
    mixed : MixedSystem
        Its Hamiltonian goes from ML to QM by a parameter, for example ML, coefficient ``"1-lambda_qm"``, and QM,
        ``"lambda_qm"``.
    context : openmm.Context
        Of its System.
    term : str
        The ML term that is the committee, for example ``"ligand/ML"``.
    upper : Quantity or float, kJ/(mol nm)
        QM is switched on when the largest uncertainty of an atom's force is above it.
    lower : Quantity or float, kJ/(mol nm)
        QM is switched off when it has stayed below it for `calm_steps`. Less than `upper`, so that a value between
        changes nothing.
    parameter : str
    check_interval : int
        Steps between two looks at the committee while ML runs alone or the parameter rests.
    ramp_steps : int
        Steps in which the parameter goes from one end to the other.
    calm_steps : int
    record : path, optional
        CSV file with a row for each decision.

    Attributes
    ----------
    work : Quantity, kJ/mol
        What the changes of the parameter have put into the system. Total energy less this is conserved without a
        thermostat.
    steps_with_qm, steps : int
        Steps in which QM had a share, and all.

    Raises
    ------
    HamiltonianError
        If there is no such parameter or term.
    ValueError
        If thresholds or counts make no sense.

    Notes
    -----
    The thresholds are forces that the training calibrated (`MixedSystem.force_uncertainty`), so they mean an error that
    is tolerated. The dynamics does not sample one Hamiltonian: where ML is trusted it is ML/MM, elsewhere QM/MM, and
    the borders cost the booked work. For averages of QM/MM use multiple time stepping or reweighting.

    Examples
    --------
    ::

        run = AdaptiveCorrection(mixed, simulation.context, "ligand/ML", upper=60.0, lower=40.0)
        run.step(10000)
        print(run.steps_with_qm / run.steps, run.work)
    """

    def __init__(
        self,
        mixed: MixedSystem,
        context: openmm.Context,
        term: str,
        *,
        upper: Any,
        lower: Any,
        parameter: str = "lambda_qm",
        check_interval: int = 10,
        ramp_steps: int = 20,
        calm_steps: int = 100,
        record: str | os.PathLike[str] | None = None,
    ) -> None:
        names = list(mixed.hamiltonian.parameters)
        if parameter not in names:
            raise HamiltonianError(
                f"the Hamiltonian has no parameter {parameter!r}; it has {listed(names) or 'none'}."
                f"{nearest(parameter, names)}"
            )
        per_length = unit.kilojoule_per_mole / unit.nanometer
        self._upper, self._lower = float(in_unit(upper, per_length)), float(in_unit(lower, per_length))
        if not 0 < self._lower < self._upper < math.inf:
            raise ValueError(
                f"thresholds are 0 < lower < upper, in kJ/(mol nm), got lower={lower!r} and upper={upper!r}"
            )
        for name, count in (
            ("check_interval", check_interval),
            ("ramp_steps", ramp_steps),
            ("calm_steps", calm_steps),
        ):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} is a whole number of steps above zero, got {count!r}")
        self._mixed, self._context, self._term, self._parameter = mixed, context, term, parameter
        self._check_interval, self._ramp_steps, self._calm_steps = check_interval, ramp_steps, calm_steps
        shares = np.array([_smooth(k / ramp_steps) for k in range(ramp_steps + 1)])
        self._position = int(np.abs(shares - context.getParameter(parameter)).argmin())
        self._rising = self._position > 0
        self._calm_since: int | None = None
        self._record = None if record is None else Path(record)
        self.work = 0.0 * unit.kilojoule_per_mole
        self.steps = 0
        self.steps_with_qm = 0
        self.last: Decision | None = None
        self._uncertainty: Callable[[], float] = lambda: float(
            np.max(mixed.force_uncertainty(context, term).value_in_unit(per_length))
        )
        self._uncertainty()  # refuses a term that is no committee before the run

    def step(self, steps: int) -> None:
        """Advance by a number of steps of the Context's integrator.

        Raises
        ------
        EvaluationError
            Or what else a term raised, in its original class.
        """
        integrator = self._context.getIntegrator()
        done = 0
        try:
            while done < steps:
                uncertainty = self._uncertainty()
                self._decide(uncertainty)
                moving = self._move_parameter()
                self._note(uncertainty)
                stretch = min(1 if moving else self._check_interval, steps - done)
                integrator.step(stretch)
                done += stretch
                self.steps += stretch
                self.steps_with_qm += stretch if self._position else 0
        except openmm.OpenMMException as error:
            self._mixed.raise_original(error)

    def _decide(self, uncertainty: float) -> None:
        """Look at the thresholds."""
        if uncertainty > self._upper:
            self._rising, self._calm_since = True, None
        elif uncertainty >= self._lower:
            self._calm_since = None
        elif self._rising:
            if self._calm_since is None:
                self._calm_since = self.steps
            elif self.steps - self._calm_since >= self._calm_steps:
                self._rising, self._calm_since = False, None

    def _move_parameter(self) -> bool:
        """Take one step towards the level that is wanted, book the work, and return whether the parameter is moving."""
        goal = self._ramp_steps if self._rising else 0
        if self._position == goal:
            return False
        before = _smooth(self._position / self._ramp_steps)
        self._position += 1 if goal > self._position else -1
        after = _smooth(self._position / self._ramp_steps)
        derivative = self._mixed.parameter_derivatives(self._context)[self._parameter]
        self.work += (after - before) * derivative
        self._context.setParameter(self._parameter, after)
        return True

    def _note(self, uncertainty: float) -> None:
        share = float(self._context.getParameter(self._parameter))
        self.last = Decision(self.steps, uncertainty, share, self.work)
        if self._record is None:
            return
        new = not self._record.exists()
        with self._record.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            work = self.work.value_in_unit(unit.kilojoule_per_mole)
            writer.writerow([self.steps, f"{uncertainty:.3f}", f"{share:.6f}", self.last.level, f"{work:.6f}"])


def _smooth(x: float) -> float:
    """Return 3 x^2 - 2 x^3, which leaves both ends with slope zero; exact at the ends."""
    return x * x * (3.0 - 2.0 * x)
