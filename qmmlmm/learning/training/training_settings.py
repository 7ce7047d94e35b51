"""Settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from qmmlmm.errors import SettingError
from qmmlmm.setting_checks import check_count, check_not_negative, check_number, check_positive, check_seed

WEIGHTS = ("force_weight", "near_weight", "vacuum_weight", "dipole_weight", "energy_weight")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training.

    Parameters
    ----------
    steps : int
        Number of steps of the optimiser, over which the learning rate decreases to zero.
    batch_size : int
        Number of frames in a step.
    learning_rate : float
        Largest learning rate, after a warm-up of five per cent of the steps.
    clip : float
        Largest norm of the gradient of a member.
    near_decay : float
        Weight decay (AdamW) of the response to near charges. Without it this response is overfitted, because labels of
        one trajectory have few independent surroundings.
    averaging : float
        Fraction that the running average of the weights keeps in each step; the trained model has the average.
    force_weight, near_weight, vacuum_weight, dipole_weight, energy_weight : float
        Weights of the squared errors, each in units of the variance of its label; missing labels do not count.
    patience : int
        Number of validations without improvement after which the training stops.
    validations : int
        Number of evaluations of the validation frames during the training.
    seed : int

    Raises
    ------
    SettingError
        If a value has the wrong type or is out of range, or no label has a weight.
    """

    steps: int = 8000
    batch_size: int = 8
    learning_rate: float = 5e-3
    clip: float = 1.0
    near_decay: float = 1.0
    averaging: float = 0.995
    force_weight: float = 1.0
    near_weight: float = 1.0
    vacuum_weight: float = 0.5
    dipole_weight: float = 0.5
    energy_weight: float = 0.1
    patience: int = 20
    validations: int = 40
    seed: int = 1

    def __post_init__(self) -> None:
        checked: dict[str, object] = {}
        for name in ("steps", "batch_size", "patience", "validations"):
            checked[name] = check_count(name, vars(self)[name])
        checked["learning_rate"] = check_number("learning_rate", self.learning_rate, above=0.0, at_most=1.0)
        checked["clip"] = check_positive("clip", self.clip)
        for name in (*WEIGHTS, "near_decay"):
            checked[name] = check_not_negative(name, vars(self)[name])
        checked["averaging"] = check_number("averaging", self.averaging, at_least=0.0, below=1.0)
        checked["seed"] = check_seed("seed", self.seed)
        if not any(checked[name] for name in WEIGHTS):
            raise SettingError(f"all of {', '.join(WEIGHTS)} are zero: nothing would be learned; give one a weight")
        for name, value in checked.items():
            object.__setattr__(self, name, value)


DEFAULT_TRAINING = TrainingSettings()
