"""Small molecules and external fields whose smooth part has a known adjoint."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.special import erf

from qmmlmm.coupling.potential import Evaluation, ExternalField, RegionSpecification
from qmmlmm.geometry import Geometry


@dataclass(frozen=True)
class BroadCharges:
    """A smooth potential made of Gaussian charges, or of point charges if the splitting is None."""

    positions: np.ndarray
    charges: np.ndarray
    splitting: float | None

    def __call__(self, points):
        vectors = points[:, None, :] - self.positions
        distances = np.linalg.norm(vectors, axis=2)
        values, slopes = self._radial(distances)
        return values @ self.charges, np.einsum("gk,gkx,k->gx", slopes, vectors, self.charges)

    def gradient(self, evaluation: Evaluation) -> np.ndarray:
        """Derivative of the region's energy with respect to the positions of these charges."""
        vectors = evaluation.smooth_points[:, None, :] - self.positions
        _, slopes = self._radial(np.linalg.norm(vectors, axis=2))
        return -np.einsum("g,gk,gkx,k->kx", evaluation.smooth_charges, slopes, vectors, self.charges)

    def _radial(self, distances):
        if self.splitting is None:
            return 1 / distances, -1 / distances**3
        a = self.splitting
        values = erf(a * distances) / distances
        return values, (2 * a / np.sqrt(np.pi) * np.exp(-((a * distances) ** 2)) - values) / distances**2


@dataclass(frozen=True)
class Case:
    specification: RegionSpecification
    positions: np.ndarray
    field: ExternalField

    @property
    def geometry(self) -> Geometry:
        """The positions, bohr."""
        return Geometry(self.positions)


WATER = np.array([[0.1, 0.2, -0.1], [0.0, 0.0, 1.8], [0.0, 1.7, -0.4]])
HYDROXYL = np.array([[0.1, 0.2, -0.1], [0.0, 0.1, 1.75]])


def _field(positions: np.ndarray) -> ExternalField:
    """Pairs, a lone point, a lone Gaussian, a charge of zero, and Gaussians on the region's own nuclei."""
    random = np.random.default_rng(1)
    radii = np.array([4.0, 5.0, 5.5, 6.0, 7.0])
    near = random.normal(size=(5, 3))
    near *= (radii / np.linalg.norm(near, axis=1))[:, None]
    own = np.linspace(-0.3, 0.2, len(positions))
    broad = random.normal(size=(4, 3))
    broad *= 12.0 / np.linalg.norm(broad, axis=1)[:, None]
    return ExternalField(
        positions=np.concatenate([near, positions]),
        point_charges=np.array([0.6, -0.4, 0.0, 0.3, 0.0] + [0.0] * len(positions)),
        gaussian_charges=np.concatenate([[-0.6, 0.4, 0.2, 0.0, 0.0], own]),
        splitting=0.25,
        smooth_potential=BroadCharges(broad, np.array([0.8, -0.5, 0.4, -0.9]), 0.25),
    )


@pytest.fixture
def water() -> Case:
    return Case(RegionSpecification("water/QM", np.array([8, 1, 1]), 0, 1), WATER.copy(), _field(WATER))


@pytest.fixture
def hydroxide() -> Case:
    specification = RegionSpecification("hydroxide", np.array([8, 1]), -1, 1)
    return Case(specification, HYDROXYL.copy(), _field(HYDROXYL))


@pytest.fixture
def radical(hydroxide) -> Case:
    return replace(hydroxide, specification=RegionSpecification("hydroxyl", np.array([8, 1]), 0, 2))
