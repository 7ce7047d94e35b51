"""Steps of the optimiser of a training, and the running average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from qmmlmm.errors import TrainingError
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.ml.response_network import ResponseNetwork

NEAR_WEIGHTS = ("near_", "vector_head")


class Optimisation:
    """AdamW with a warm-up, a cosine to zero, gradients that are clipped for each member, and averaged weights.

    Parameters
    ----------
    model : ResponseNetwork
        Model to train, in place.
    settings : TrainingSettings
    """

    def __init__(self, model: ResponseNetwork, settings: TrainingSettings) -> None:
        self.model = model
        self.settings = settings
        self.average = copy.deepcopy(model).eval()
        near = [weight for name, weight in model.named_parameters() if name.startswith(NEAR_WEIGHTS)]
        rest = [weight for name, weight in model.named_parameters() if not name.startswith(NEAR_WEIGHTS)]
        groups = [{"params": rest, "weight_decay": 1e-6}, {"params": near, "weight_decay": settings.near_decay}]
        # The foreach variant sums in another order; the choice must not depend on the machine.
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, foreach=False)
        warm_up = max(1, settings.steps // 20)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _cosine(step, warm_up, settings.steps)
        )

    def step(self, losses: Tensor, number: int) -> float:
        """Do one step, and return the mean loss.

        Parameters
        ----------
        losses : (members,) tensor
        number : int
            Number of steps before it.

        Raises
        ------
        TrainingError
            If the loss is not a number.
        """
        if not bool(torch.isfinite(losses).all()):
            raise TrainingError(
                f"the loss is {losses.tolist()} at step {number}; check the labels for outliers, or lower the "
                f"learning rate of {self.settings.learning_rate}"
            )
        self.optimizer.zero_grad()
        losses.sum().backward()
        _clip(self.model, self.settings.clip)
        self.optimizer.step()
        self.schedule.step()
        # In the first steps the average forgets the random weights of the start.
        keep = min(self.settings.averaging, (1.0 + number) / (10.0 + number))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(now, 1.0 - keep)
        return float(losses.detach().mean())

    def state(self) -> dict[str, dict[str, object]]:
        """Return what `restore` needs to continue."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {key: v for key, v in self.schedule.state_dict().items() if key != "lr_lambdas"},
        }

    def restore(self, state: Mapping[str, Mapping[str, object]]) -> None:
        """Continue from a state."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(dict(state["optimizer"]))
        self.schedule.load_state_dict({**self.schedule.state_dict(), **state["schedule"]})


def _cosine(step: int, warm_up: int, steps: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    part = (step - warm_up) / max(1, steps - warm_up)
    return 0.5 * (1.0 + float(torch.cos(torch.tensor(torch.pi * part, dtype=torch.float64))))


def _clip(model: ResponseNetwork, limit: float) -> None:
    """Limit the norm of the gradient of each member, separately."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    squares = torch.stack([gradient.square().flatten(1).sum(1) for gradient in gradients]).sum(0)
    factor = (limit / (squares.sqrt() + 1e-12)).clamp(max=1.0)
    for gradient in gradients:
        gradient *= factor.view(-1, *[1] * (gradient.dim() - 1))
