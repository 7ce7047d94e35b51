"""The models of a loop: one after each round, as files, and the newest as a potential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qmmlmm.errors import PotentialError
from qmmlmm.learning.loop.error_bound import ErrorBound
from qmmlmm.learning.loop.errors import LoopError, full_disk
from qmmlmm.learning.loop.geometry_record import checksum
from qmmlmm.learning.loop.retraining import judge, retrain
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.learning.loop.time_book import ML, TimeBook
from qmmlmm.learning.network_file import load_network, region_potential, save_network
from qmmlmm.learning.training import TrainingSettings
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.response_network import ResponseNetwork, ResponseSettings

MODELS_NAME = "models"
MODEL_NAME = "model.pt"


def holds(result: dict[str, Any], settings: LoopSettings) -> bool:
    """Return whether the bounds hold after a round, and no walker had to be stopped in it."""
    bound = ErrorBound(**result["error"])
    return bound.holds(settings.force_error, settings.energy_error) and not result["stopped"]


class LoopModels:
    """Trains, judges and keeps the models of a loop.

    Parameters
    ----------
    directory : Path
    settings : LoopSettings
    network : ResponseSettings
    training : TrainingSettings
    given : ResponseNetwork or None
        Runs in the first round.
    book : TimeBook

    Raises
    ------
    LoopError
        If the model that is given is no committee.
    """

    def __init__(
        self,
        directory: Path,
        settings: LoopSettings,
        network: ResponseSettings,
        training: TrainingSettings,
        given: ResponseNetwork | None,
        book: TimeBook,
    ) -> None:
        if given is not None and given.members < 2:
            raise LoopError("the model to start from is no committee; train one with members=4")
        self.directory, self.settings, self.given, self.book = directory, settings, given, book
        self._network, self._training = network, training
        self._potential: tuple[int, MLPotential] | None = None

    def prepare(self) -> None:
        """Make the folder of the networks."""
        (self.directory / MODELS_NAME).mkdir(exist_ok=True)

    def train(self, store: LoopStore, number: int, told: Callable[[int], None]) -> dict[str, Any]:
        """Tell the error of the model that ran in a round, and train the next unless that was good enough.

        Parameters
        ----------
        store : LoopStore
            With all labels of the round.
        number : int
            Of the round.
        told : callable
            Called with the number of labels before a training.

        Returns
        -------
        dict
            What the store keeps of the round; ``passed`` says that the bounds hold.
        """
        result: dict[str, Any] = {}
        settings = self.settings
        if number > 0:
            result = self._judge(store, number)
            if result["passed"]:
                self._save_model(number - 1)
                result["network"] = checksum(self._network_path(number - 1).read_bytes())
                return result
        path = self._network_path(number)
        if number == 0 and self.given is not None:
            network = self.given
        else:
            frames = [frame for job, frame in store.labels() if job.round <= number]
            last = None
            if settings.retrain == "continue" and number > 0:
                last = self._load(store, number - 1)
            told(len(frames))
            with self.book.booking(ML):
                trained = retrain(
                    frames, last, network=self._network, training=self._training, members=settings.members,
                    share=settings.validation, checkpoint=self.directory / "training.pt",
                )  # fmt: skip
            network = trained.model
            result["validation"] = asdict(trained.validation)
            result["frames"] = len(frames)
        save_network(network, path)
        result["network"] = checksum(path.read_bytes())
        (self.directory / "training.pt").unlink(missing_ok=True)
        self._save_model(number)
        return result

    def _judge(self, store: LoopStore, number: int) -> dict[str, Any]:
        """Return the errors of the model that ran in a round on its fresh configurations."""
        settings = self.settings
        fresh = [frame for job, frame in store.labels(number) if job.kind == "fresh"]
        network = self._load(store, number - 1)
        with self.book.booking(ML):
            bound, spread = judge(network, fresh, settings.confidence)
        stopped = store.events(number)
        result: dict[str, Any] = {
            "error": asdict(bound),
            "stopped": len(stopped),
        }
        result["passed"] = holds(result, settings)
        if spread is not None:
            scale = float(network.uncertainty_scale)
            result["calibration"] = {
                "expected": np.round(scale * spread.atom_spread.ravel(), 3).tolist(),
                "true": np.round(spread.atom_error.ravel(), 3).tolist(),
            }
        return result

    def _network_path(self, number: int) -> Path:
        return self.directory / MODELS_NAME / f"network_{number:03d}.pt"

    def _load(self, store: LoopStore, number: int) -> ResponseNetwork:
        """Return the network after a round.

        Raises
        ------
        LoopError
            If its file was damaged.
        """
        path = self._network_path(number)
        wanted = next(result.get("network") for r, _, result in store.rounds() if r == number)
        try:
            if checksum(path.read_bytes()) == wanted:
                return load_network(path)
            raise PotentialError(f"{path} was changed")
        except (OSError, PotentialError) as error:
            raise LoopError(
                f"the model of round {number} is lost ({error}); copy it back, or start a loop in another directory "
                f"with the labels in {store.mirror.path}"
            ) from error

    def potential(self, number: int) -> MLPotential:
        """Return the potential of the network after a round; the last one is kept."""
        if self._potential is None or self._potential[0] != number:
            self._potential = number, self.another_potential(number)
        return self._potential[1]

    def another_potential(self, number: int) -> MLPotential:
        """Return the same potential as an object of its own, for another thread."""
        with self.book.booking(ML):
            return region_potential(load_network(self._network_path(number)))

    def _save_model(self, number: int) -> None:
        potential = self.potential(number)
        try:
            potential.save(self.directory / MODEL_NAME)
        except RuntimeError as error:  # torch has an error of its own for a full disk
            raise full_disk(self.directory, error) from error
