"""A molecule whose energy is a formula, for trainings."""

from __future__ import annotations

import numpy as np
import torch

from qmmlmm.learning import LabelledFrame, NearCharges

NUMBERS = [8, 1, 1, 6]


class Teacher:
    """A molecule whose energy is a formula: springs, charges, a dipole and polarisabilities, among point charges."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.numbers = NUMBERS
        self.charge = 0
        self.start = np.array([[0.0, 0.0, 0.0], [1.8, 0.2, 0.0], [-0.5, 1.75, 0.1], [-1.2, -1.9, 0.8]])
        self.charges = torch.tensor([-0.6, 0.25, 0.25, 0.1], dtype=torch.float64)
        # The same for like pairs, (0, 1) and (0, 2), (1, 3) and (2, 3): no model tells like atoms apart.
        self.lengths = torch.tensor([1.82, 1.82, 2.38, 2.78, 3.77, 3.77], dtype=torch.float64)
        self.method = "formula"

    def vacuum(self, x: torch.Tensor) -> torch.Tensor:
        stretch = _lengths(x) - self.lengths
        return -5.0 + 0.15 * (stretch**2).sum() + 0.05 * (stretch[0] * stretch[1] * stretch[2])

    def interaction(self, x, near, charges):
        delta = x[:, None] - near[None]
        r = delta.norm(dim=-1)
        potential = (1.0 / r) @ charges
        (slope,) = torch.autograd.grad(potential.sum(), x, create_graph=True)
        dipole = 0.2 * (x[1] + x[2] - 2.0 * x[0])
        return (
            (self.charges * potential).sum() + dipole @ slope[0] - 0.5 * 2.5 * (slope**2).sum(),
            potential,
            slope,
        )

    def frame(self, name: str = "t", k: int = 5, spread: float = 7.0) -> LabelledFrame:
        x = torch.tensor(self.start + 0.06 * self.rng.normal(size=self.start.shape), requires_grad=True)
        direction = self.rng.normal(size=(k, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        near = torch.tensor(direction * (spread + self.rng.uniform(0, 2, size=(k, 1))), requires_grad=True)
        charges = torch.tensor(self.rng.normal(size=k) * 0.6)
        bare = self.vacuum(x)
        (vacuum_gradient,) = torch.autograd.grad(bare, x, retain_graph=True)
        together, potential, slope = self.interaction(x, near, charges)
        gradient, near_gradient = torch.autograd.grad(bare + together, [x, near], retain_graph=True)
        curvature = torch.stack(
            [torch.autograd.grad(slope[:, a].sum(), x, retain_graph=True)[0] for a in range(3)], dim=1
        )
        moments = self.moments(x.detach())
        return LabelledFrame(
            atomic_numbers=np.array(self.numbers),
            positions=x.detach().numpy(),
            energy=(bare + together).item(),
            forces=-gradient.numpy(),
            method=self.method,
            charge=self.charge,
            potential=potential.detach().numpy(),
            field=-slope.detach().numpy(),
            field_gradient=-curvature.numpy(),
            vacuum_energy=bare.item(),
            vacuum_forces=-vacuum_gradient.numpy(),
            vacuum_dipole=moments,
            near=NearCharges(near.detach().numpy(), charges.numpy(), -near_gradient.numpy()),
            name=name,
        )

    def moments(self, x: torch.Tensor) -> np.ndarray:
        nuclear = torch.tensor(self.numbers, dtype=torch.float64)
        center = nuclear @ x / nuclear.sum()
        return (self.charges @ (x - center) + 0.2 * (x[1] + x[2] - 2.0 * x[0])).numpy()

    def frames(self, count: int, **options) -> list[LabelledFrame]:
        return [self.frame(name=f"t-{index}", **options) for index in range(count)]


def _lengths(x: torch.Tensor) -> torch.Tensor:
    first, second = torch.triu_indices(4, 4, offset=1)
    return (x[first] - x[second]).norm(dim=-1)
