"""The models of a loop: one for each round, as files, and the newest one as a potential."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from qmmlmm.durable_files import checksum
from qmmlmm.errors import LoopError, PotentialError
from qmmlmm.learning.full_disk import full_disk
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.learning.loop.loop_base import LoopBase
from qmmlmm.learning.loop.round_record import RoundResult, error_record
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.learning.loop.timer import ML, Timer
from qmmlmm.learning.training.error_bound import ErrorBound
from qmmlmm.learning.training.retraining import judge, retrain
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.ml.ml_potential import MLPotential, region_potential
from qmmlmm.ml.network_file import load_network, save_network
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings

MODELS_NAME = "models"
MODEL_NAME = "model.pt"
CHECKPOINT_NAME = "training.pt"


def bounds_hold(result: RoundResult, settings: LoopSettings) -> bool:
    """Return whether the bounds hold for the model of a round, and no walker was stopped in it."""
    bound = ErrorBound(**result["error"])
    return bound.holds(settings.force_error, settings.energy_error) and not result["stopped"]


class LoopModels:
    """Trains, tests and stores the models of a loop.

    Parameters
    ----------
    directory : Path
    settings : LoopSettings
    network : ResponseSettings
    training : TrainingSettings
    given : ResponseNetwork or None
        Committee that runs in the first round.
    timer : Timer
    base : LoopBase or None
        Level to which the models are differences.

    Raises
    ------
    LoopError
        If the given model is no committee.
    """

    def __init__(
        self,
        directory: Path,
        settings: LoopSettings,
        network: ResponseSettings,
        training: TrainingSettings,
        given: ResponseNetwork | None,
        timer: Timer,
        base: LoopBase | None = None,
    ) -> None:
        if given is not None and given.members < 2:
            raise LoopError("the model to start from is no committee; train one with members=4")
        self.directory, self.settings, self.given = directory, settings, given
        self._timer = timer
        self._network, self._training = network, training
        self._base = base
        self._potential: tuple[int, MLPotential] | None = None

    def prepare(self) -> None:
        """Create the folder of the networks."""
        (self.directory / MODELS_NAME).mkdir(exist_ok=True)

    def train(self, store: LoopStore, number: int, on_training: Callable[[int], None]) -> RoundResult:
        """Test the model that ran in a round, and train the next model unless the bounds hold.

        Parameters
        ----------
        store : LoopStore
            Store with all labels of the round.
        number : int
            Number of the round.
        on_training : callable
            Function that is called with the number of labels before a training.

        Returns
        -------
        RoundResult
        """
        result: RoundResult = {}
        settings = self.settings
        if number > 0:
            result = self._test(store, number)
            if result["passed"]:
                self._save_model(number - 1)
                result["network"] = checksum(self._network_path(number - 1).read_bytes())
                return result
        path = self._network_path(number)
        if number == 0 and self.given is not None:
            network = self.given
        else:
            labels = [(job.id, frame) for job, frame in store.labels() if job.round <= number]
            frames = self._learned(labels)
            last = None
            if settings.retrain == "continue" and number > 0:
                last = self._load(store, number - 1)
            on_training(len(frames))
            with self._timer.measure(ML):
                trained = retrain(
                    frames, last, network=self._network, training=self._training, members=settings.members,
                    share=settings.validation, checkpoint=self.directory / CHECKPOINT_NAME,
                    difference=None if self._base is None else self._base.difference,
                )  # fmt: skip
            network = trained.model
            result["validation"] = asdict(trained.validation)
            result["frames"] = len(frames)
        save_network(network, path)
        result["network"] = checksum(path.read_bytes())
        (self.directory / CHECKPOINT_NAME).unlink(missing_ok=True)
        self._save_model(number)
        return result

    def _test(self, store: LoopStore, number: int) -> RoundResult:
        """Return the errors of the model that ran in a round on its fresh configurations."""
        settings = self.settings
        fresh = self._learned([(job.id, frame) for job, frame in store.labels(number) if job.kind == "fresh"])
        network = self._load(store, number - 1)
        with self._timer.measure(ML):
            bound, spread = judge(network, fresh, settings.confidence)
        result: RoundResult = {"error": error_record(bound), "stopped": len(store.events(number))}
        result["passed"] = bounds_hold(result, settings)
        if spread is not None:
            scale = float(network.uncertainty_scale)
            result["calibration"] = {
                "expected": np.round(scale * spread.atom_spread.ravel(), 3).tolist(),
                "true": np.round(spread.atom_error.ravel(), 3).tolist(),
            }
        return result

    def _learned(self, labels: Sequence[tuple[int, LabelledFrame]]) -> list[LabelledFrame]:
        """Return the labels that a model learns, of jobs with their labels."""
        if self._base is None:
            return [frame for _, frame in labels]
        with self._timer.measure(ML):
            return self._base.learned(labels)

    def _network_path(self, number: int) -> Path:
        return self.directory / MODELS_NAME / f"network_{number:03d}.pt"

    def _load(self, store: LoopStore, number: int) -> ResponseNetwork:
        """Return the network that was trained in a round.

        Raises
        ------
        LoopError
            If its file is missing or damaged.
        """
        path = self._network_path(number)
        expected = next((result.get("network") for r, _, result in store.rounds() if r == number), None)
        try:
            if checksum(path.read_bytes()) == expected:
                return load_network(path)
            raise PotentialError(f"{path} has changed")
        except (OSError, PotentialError) as error:
            raise LoopError(
                f"the model of round {number} is lost ({error}); copy it back, or start a loop in another directory "
                f"with the labels in {store.mirror.path}"
            ) from error

    def potential(self, number: int) -> MLPotential:
        """Return the potential that was trained in a round; the last one is cached."""
        if self._potential is None or self._potential[0] != number:
            self._potential = number, self.new_potential(number)
        return self._potential[1]

    def new_potential(self, number: int) -> MLPotential:
        """Return the potential that was trained in a round as a new object, for another thread."""
        with self._timer.measure(ML):
            return region_potential(load_network(self._network_path(number)))

    def _save_model(self, number: int) -> None:
        potential = self.potential(number)
        try:
            potential.save(self.directory / MODEL_NAME)
        except RuntimeError as error:
            # The error of torch for a full disk.
            raise full_disk(self.directory, error) from error
