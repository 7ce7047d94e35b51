"""QM while a committee is uncertain: a parameter follows the uncertainty, and the work of its changes is recorded."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import RunDirectoryError, SettingError
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.sampling.driven_parameter import check_driven_parameter
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_mapping,
    check_path,
    check_quantity,
    check_steps,
    check_text,
    check_whole_number,
)
from qmmlmm.units import FloatArray, Scalar

COLUMNS = ("Step", "Uncertainty (kJ/mol/nm)", "Share of QM", "Level", "Work (kJ/mol)")

LONGEST_RAMP = 100_000
"""Largest number of steps of a change; its values are kept."""


@dataclass(frozen=True)
class Decision:
    """The level of theory of some steps.

    Parameters
    ----------
    step : int
        First of these steps.
    uncertainty : float, kJ/(mol nm)
        Largest uncertainty of an atom's force at its geometry.
    share : float
        Value of the parameter: 0 is ML, 1 is QM.
    work : Quantity, kJ/mol
        Work of all changes of the parameter so far.
    """

    step: int
    uncertainty: float
    share: float
    work: unit.Quantity

    @property
    def level(self) -> str:
        """``"ML"``, ``"QM"``, or ``"ML to QM"`` during a change."""
        return {0.0: "ML", 1.0: "QM"}.get(self.share, "ML to QM")


class AdaptiveCorrection:
    """Runs a Simulation in which QM corrects ML while a committee is uncertain about its forces.

    Parameters
    ----------
    mixed : MixedSystem
        System whose Hamiltonian goes from ML to QM by a parameter, for example ML with the coefficient
        ``"1-lambda_qm"`` and QM with ``"lambda_qm"``.
    simulation : openmm.app.Simulation
        Simulation of this System, with positions. Its reporters report as in any run.
    term : str
        Name of the ML term with the committee, for example ``"ligand/ML"``.
    upper : Quantity or float, kJ/(mol nm)
        Uncertainty above which QM is switched on: the largest of an atom's force.
    lower : Quantity or float, kJ/(mol nm)
        Uncertainty below which QM is switched off, after `calm_steps`. It is below `upper`; a value between the two
        changes nothing.
    parameter : str
        Name of the parameter.
    check_interval : int
        Number of steps between two observations of the committee while the parameter is constant.
    ramp_steps : int
        Number of steps in which the parameter goes from one end to the other.
    calm_steps : int
        Number of steps below `lower` before QM is switched off.
    record : path, optional
        CSV file with a row for each decision.

    Attributes
    ----------
    work : Quantity, kJ/mol
        Work of the changes of the parameter on the system. Without a thermostat the total energy minus this is
        conserved.
    steps_with_qm, steps : int
        Number of steps in which QM had a share, and of all steps.

    Raises
    ------
    HamiltonianError
        If there is no such parameter or term.
    SettingError
        If thresholds or counts are out of range, or an argument has another type.
    UnsupportedSystemError
        If charges of the System were changed after it was created.

    Notes
    -----
    The thresholds are errors of forces, which the training calibrated (`MixedSystem.force_uncertainty`). The dynamics
    does not sample one Hamiltonian: it is ML/MM at low and QM/MM at high uncertainty, and `work` is the energy of the
    changes. For averages of QM/MM use multiple time stepping or reweighting. In a `RunDirectory` it is the sampler: its
    counts and its work are in the checkpoints.

    Examples
    --------
    ::

        correction = AdaptiveCorrection(mixed, simulation, "ligand/ML", upper=60.0, lower=40.0)
        correction.step(10000)
        print(correction.steps_with_qm / correction.steps, correction.work)
    """

    def __init__(
        self,
        mixed: MixedSystem,
        simulation: app.Simulation,
        term: str,
        *,
        upper: Scalar,
        lower: Scalar,
        parameter: str = "lambda_qm",
        check_interval: int = 10,
        ramp_steps: int = 20,
        calm_steps: int = 100,
        record: str | os.PathLike[str] | None = None,
    ) -> None:
        check_driven_parameter(mixed, simulation, parameter)
        check_text("term", term)
        per_length = unit.kilojoule_per_mole / unit.nanometer
        self._upper = check_quantity("upper", upper, per_length)
        self._lower = check_quantity("lower", lower, per_length)
        if not 0 < self._lower < self._upper:
            raise SettingError(
                f"thresholds are 0 < lower < upper, in kJ/(mol nm), got lower={lower!r} and upper={upper!r}"
            )
        for name, count in (
            ("check_interval", check_interval),
            ("ramp_steps", ramp_steps),
            ("calm_steps", calm_steps),
        ):
            check_whole_number(name, count, at_most=LARGEST_COUNT, what="a whole number of steps")
        if ramp_steps > LONGEST_RAMP:
            raise SettingError(f"ramp_steps is at most {LONGEST_RAMP}, got {ramp_steps}")
        context = simulation.context
        mixed.check_unchanged(context)
        self.simulation = simulation
        self._mixed, self._context, self._parameter = mixed, context, parameter
        self._check_interval, self._ramp_steps, self._calm_steps = check_interval, ramp_steps, calm_steps
        shares = np.array([_smooth(k / ramp_steps) for k in range(ramp_steps + 1)])
        self._position = int(np.abs(shares - context.getParameter(parameter)).argmin())
        self._rising = self._position > 0
        self._calm_since: int | None = None
        self._record = None if record is None else check_path("record", record)
        self.work = 0.0 * unit.kilojoule_per_mole
        self.steps = 0
        self.steps_with_qm = 0
        self.last: Decision | None = None
        self._uncertainty: Callable[[], float] = lambda: float(
            np.max(mixed.force_uncertainty(context, term).value_in_unit(per_length))
        )
        self._uncertainty()  # raises before the run if the term is no committee

    def step(self, steps: int) -> None:
        """Advance the Simulation by a number of steps, with its reporters.

        Parameters
        ----------
        steps : int

        Raises
        ------
        SettingError
            If it is no number of steps of zero or more.
        EvaluationError
            If a term fails; also other exceptions of a term, in their original class.
        """
        check_steps("steps", steps)
        self._mixed.check_unchanged(self._context)
        done = 0
        try:
            while done < steps:
                uncertainty = self._uncertainty()
                self._decide(uncertainty)
                moving = self._move_parameter()
                self._write(uncertainty)
                count = min(1 if moving else self._check_interval, steps - done)
                self.simulation.step(count)
                done += count
                self.steps += count
                self.steps_with_qm += count if self._position else 0
        except openmm.OpenMMException as error:
            self._mixed.raise_original(error)

    def memory(self) -> dict[str, FloatArray]:
        """Return the arrays of a checkpoint, for `recall`."""
        calm_since = np.nan if self._calm_since is None else float(self._calm_since)
        work = self.work.value_in_unit(unit.kilojoule_per_mole)
        counts = [self._position, self._rising, calm_since, work, self.steps, self.steps_with_qm]
        return {"counts": np.array(counts, dtype=float)}

    def recall(self, memory: Mapping[str, FloatArray]) -> None:
        """Continue from what `memory` returned.

        Raises
        ------
        RunDirectoryError
            If it comes from something else.
        """
        check_mapping("memory", memory, RunDirectoryError)
        if "counts" not in memory or np.shape(memory["counts"]) != (6,):
            raise RunDirectoryError("this memory is not of an AdaptiveCorrection: it has no six counts")
        position, rising, calm_since, work, steps, with_qm = memory["counts"]
        self._position, self._rising = int(position), bool(rising)
        self._calm_since = None if np.isnan(calm_since) else int(calm_since)
        self.work = float(work) * unit.kilojoule_per_mole
        self.steps, self.steps_with_qm = int(steps), int(with_qm)

    def _decide(self, uncertainty: float) -> None:
        """Compare an uncertainty with the thresholds."""
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
        """Move the parameter one step towards its goal, add the work, and return whether it has moved."""
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

    def _write(self, uncertainty: float) -> None:
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
    """Return 3 x^2 - 2 x^3, whose derivative is zero at both ends; exact at the ends."""
    return x * x * (3.0 - 2.0 * x)
