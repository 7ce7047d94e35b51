"""Steps, validations and checkpoints of a training that can be stopped and continued at any step."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from qmmlmm.errors import TrainingError
from qmmlmm.learning.training.checkpoint_file import ADVICE, check_checkpoint, read_checkpoint, write_checkpoint
from qmmlmm.learning.training.optimisation import Optimisation
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.progress_display import progress_bar


class ValidationErrors(Protocol):
    """A record of the errors of a model on validation frames."""

    @property
    def energy(self) -> float:
        """Error of the energy, kJ/mol."""

    @property
    def forces(self) -> float:
        """Error of the forces, kJ/(mol nm)."""


Errors = TypeVar("Errors", bound=ValidationErrors)
Result = TypeVar("Result")


class ResumableTraining(ABC, Generic[Errors, Result]):
    """A training that can be continued from its checkpoint, with the same result to the last bit.

    Subclasses say from which frames it learns.

    Parameters
    ----------
    model : ResponseNetwork
        Model to train, in place.
    settings : TrainingSettings
    device : torch.device
        Device of the model.

    Attributes
    ----------
    average : ResponseNetwork
        Model with the running average of the weights.
    best : dict
        Averaged weights of the best validation.
    step : int
        Number of steps so far.
    history : list of dict
        Step, loss and validation errors at each validation.
    """

    def __init__(self, model: ResponseNetwork, settings: TrainingSettings, device: torch.device) -> None:
        self.model = model
        self.settings = settings
        self.device = device
        self.optimisation = Optimisation(model, settings)
        self.average = self.optimisation.average
        self.best = copy.deepcopy(self.average.state_dict())
        self.best_score = float("inf")
        self.since_best = 0
        self.step = 0
        self.history: list[dict[str, float]] = []

    @abstractmethod
    def _losses(self, step: int) -> Tensor:
        """Return the loss of every member on the frames of a step, (members,)."""

    @abstractmethod
    def _validation_errors(self) -> Errors:
        """Return the errors of the averaged weights on the validation frames."""

    @abstractmethod
    def _score(self, errors: Errors) -> float:
        """Return one number for validation errors: the lower, the better."""

    @abstractmethod
    def _identity(self) -> dict[str, object]:
        """Return settings, and numbers that change with the frames and the size of the model."""

    @abstractmethod
    def _result(self) -> Result:
        """Return the result, with the averaged weights of the best validation."""

    def run(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        until: Callable[[], bool] | None = None,
    ) -> Result:
        """Train until all steps are complete or the validation stops improving.

        Parameters
        ----------
        checkpoint : path, optional
            Checkpoint file, written at each validation; an existing one is continued.
        progress : bool, optional
            Whether to show a progress bar with the errors; by default if standard error is a terminal.
        until : callable, optional
            Function that is called at each validation; the training stops there if it returns True.

        Raises
        ------
        TrainingError
            If the loss is not a number, the checkpoint cannot be written, or is damaged or of another training.
        SettingError
            If there is no folder for the checkpoint.
        """
        settings = self.settings
        if checkpoint is not None and check_checkpoint(checkpoint).exists():
            self.load(checkpoint)
        interval = max(1, settings.steps // settings.validations)
        with progress_bar(settings.steps, "training", "step", initial=self.step, shown=progress) as bar:
            while self.step < settings.steps and self.since_best < settings.patience:
                loss = self.optimisation.step(self._losses(self.step), self.step)
                self.step += 1
                bar.update()
                if self.step % interval == 0 or self.step == settings.steps:
                    errors = self._validate(loss)
                    text = f"energy {errors.energy:.2f} kJ/mol, forces {errors.forces:.1f} kJ/mol/nm"
                    bar.set_postfix_str(text, refresh=False)
                    if checkpoint is not None:
                        self.save(checkpoint)
                    if until is not None and until():
                        break
        return self._result()

    def _validate(self, loss: float) -> Errors:
        """Evaluate the averaged weights, and keep them if they are the best so far."""
        errors = self._validation_errors()
        score = self._score(errors)
        if score < self.best_score:
            self.best_score = score
            self.best = copy.deepcopy(self.average.state_dict())
            self.since_best = 0
        else:
            self.since_best += 1
        self.history.append({"step": self.step, "loss": loss, **vars(errors)})
        return errors

    def _generator(self, step: int, steps_of_epoch: int) -> torch.Generator:
        """Return random numbers for the order of the frames: the same in every step of an epoch, from the seed only."""
        return torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step // steps_of_epoch)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint for `load`, as a whole or not at all.

        Raises
        ------
        TrainingError
            If it cannot be written.
        """
        write_checkpoint(path, self._state())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Load a checkpoint.

        Raises
        ------
        TrainingError
            If it is damaged, of other frames or settings, or has another format.
        """
        state = read_checkpoint(path, self.device, self._identity())
        try:
            self._restore(state)
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(f"the checkpoint {str(path)!r} is damaged ({error}); {ADVICE}") from error

    def _state(self) -> dict[str, object]:
        """Return the content of a checkpoint."""
        return {
            **self._identity(),
            **self.optimisation.state(),
            "best": self.best,
            "progress": (self.step, self.best_score, self.since_best),
            "history": self.history,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.optimisation.restore(state)
        self.best = state["best"]
        self.step, self.best_score, self.since_best = state["progress"]
        self.history = state["history"]
