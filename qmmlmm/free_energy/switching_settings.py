"""Settings of equilibrium sampling and switching."""

from __future__ import annotations

from dataclasses import dataclass

from openmm import unit

from qmmlmm.setting_checks import LARGEST_COUNT, check_quantity, check_seed, check_text, check_whole_number

FEWEST_TRAJECTORIES = 4
"""Least number of trajectories in each direction from which an error can be estimated at all."""


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


DEFAULT_SETTINGS = SwitchingSettings()
