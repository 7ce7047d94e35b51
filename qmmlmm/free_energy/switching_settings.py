"""Settings of equilibrium sampling and switching."""

from __future__ import annotations

import math
from dataclasses import dataclass

from openmm import unit

from qmmlmm.setting_checks import LARGEST_COUNT, check_quantity, check_seed, check_text, check_whole_number

FEWEST_TRAJECTORIES = 4
"""Least number of trajectories in each direction from which an error can be estimated at all."""

EQUILIBRATION_TIMES, SAMPLING_TIMES = 3.0, 10.0
"""Least equilibration, and least time from which frames are taken, in relaxation times 1/friction."""


@dataclass(frozen=True)
class SwitchingSettings:
    """Sampling at both ends of a stage, and switching between them in both directions.

    Parameters
    ----------
    temperature : Quantity or float, K
    trajectories : int
        Number of switching trajectories in each direction.
    switch_steps : int
        Number of steps of each of them; the parameter changes at each step. Longer switches have more overlap.
    equilibration_steps : int
        Number of steps at each end before the first frame.
    steps_between_frames : int
        Number of steps between the frames from which switching starts.
    replicas : int
        Number of independent simulations at each end, among which the frames are divided.
    step_size : Quantity or float, ps
    friction : Quantity or float, 1/ps
    checkpoint_steps : int
        Number of steps after which a trajectory is saved.
    seed : int
    platform : str, optional
        Name of the OpenMM platform; OpenMM chooses one if not given.

    Raises
    ------
    SettingError
        If a number is out of range.
    """

    temperature: float = 300.0
    trajectories: int = 50
    switch_steps: int = 1000
    equilibration_steps: int = 5000
    steps_between_frames: int = 1000
    replicas: int = 1
    step_size: float = 0.001
    friction: float = 1.0
    checkpoint_steps: int = 1000
    seed: int = 1
    platform: str | None = None

    def __post_init__(self) -> None:
        for name, default, highest in (
            ("temperature", unit.kelvin, None),
            ("step_size", unit.picosecond, 0.1),
            ("friction", unit.picosecond**-1, None),
        ):
            value = check_quantity(name, vars(self)[name], default, above=0.0, at_most=highest)
            object.__setattr__(self, name, value)
        for name in ("switch_steps", "equilibration_steps", "steps_between_frames", "replicas", "checkpoint_steps"):
            check_whole_number(name, vars(self)[name], at_most=LARGEST_COUNT)
        check_whole_number("trajectories", self.trajectories, at_least=FEWEST_TRAJECTORIES, at_most=LARGEST_COUNT)
        check_seed("seed", self.seed)
        if self.platform is not None:
            check_text("platform", self.platform)

    @property
    def sampling_advice(self) -> str:
        """What to do if frames are too few relaxation times of the thermostat apart; empty if they are not.

        Heat leaves an oscillator in the time 1/friction, and no slower motion is faster. Frames that are not far apart
        are alike, and a bootstrap does not know it.
        """
        relaxation = 1.0 / (self.friction * self.step_size)
        enough = math.ceil(round(EQUILIBRATION_TIMES * relaxation, 6))
        apart = math.ceil(round(SAMPLING_TIMES * relaxation / self.trajectories, 6))
        found = []
        if self.equilibration_steps < enough:
            found.append(
                f"the equilibration of {self.equilibration_steps * self.step_size:.3g} ps is shorter than "
                f"{EQUILIBRATION_TIMES:g}/friction, and the first frames depend on the structure that was given; take "
                f"equilibration_steps = {enough} or more"
            )
        if self.steps_between_frames < apart:
            found.append(
                f"the frames come from {self.trajectories * self.steps_between_frames * self.step_size:.3g} ps, less "
                f"than {SAMPLING_TIMES:g}/friction: they are alike, and the true error is larger than the one given; "
                f"take steps_between_frames = {apart} or more"
            )
        return "; ".join(found)


DEFAULT_SETTINGS = SwitchingSettings()
