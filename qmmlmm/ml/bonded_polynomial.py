"""The part of a molecule's energy that is linear in its parameters; it is fitted before a network is trained."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from qmmlmm.units import ANGSTROM_IN_BOHR

STEEPNESS = (1.5 / ANGSTROM_IN_BOHR, 0.25 / ANGSTROM_IN_BOHR, 0.25 / ANGSTROM_IN_BOHR)
"""Steepness for atoms one, two and three bonds apart, 1/bohr."""

DEGREES = (4, 2, 2)
"""Degrees of their polynomials. Higher degrees for angles and torsions do not fit better, and outside the fitted range
their errors are larger and the same for all members of a committee."""


def atom_classes(atomic_numbers: Sequence[int], bonds: Iterable[tuple[int, int]]) -> list[int]:
    """Return a class for each atom; equivalent atoms, such as the hydrogens of a methyl group, have the same."""
    n = len(atomic_numbers)
    neighbours = bonded_atoms(n, bonds)
    colours: list[int] = list(atomic_numbers)
    for _ in range(n):  # refinement as in Morgan's algorithm
        keys = [(colours[i], tuple(sorted(colours[j] for j in neighbours[i]))) for i in range(n)]
        ranks = {key: k for k, key in enumerate(sorted(set(keys)))}
        refined = [ranks[key] for key in keys]
        if len(set(refined)) == len(set(colours)):
            break
        colours = refined
    return colours


def bonded_atoms(n: int, bonds: Iterable[tuple[int, int]]) -> list[set[int]]:
    """Return the atoms that are bonded to each of n atoms."""
    neighbours: list[set[int]] = [set() for _ in range(n)]
    for a, b in bonds:
        neighbours[a].add(b)
        neighbours[b].add(a)
    return neighbours


def pair_classes(
    atomic_numbers: Sequence[int], bonds: Iterable[tuple[int, int]], longest_path: int = 3
) -> list[tuple[int, int, int, int]]:
    """Return the pairs of atoms that are one to `longest_path` bonds apart, with classes of equivalent pairs.

    Two pairs are in one class if they are the same up to an exchange of equivalent atoms, such as the hydrogens of a
    methyl group.

    Returns
    -------
    list of (int, int, int, int)
        First atom, second atom, class, bonds between them.
    """
    n = len(atomic_numbers)
    bonds = list(bonds)
    neighbours = bonded_atoms(n, bonds)
    colours = atom_classes(atomic_numbers, bonds)
    pairs: list[tuple[int, int, int, int]] = []
    classes: dict[tuple[int, int, int], int] = {}
    for start in range(n):
        frontier, seen = {start}, {start}
        for path in range(1, longest_path + 1):
            frontier = {m for f in frontier for m in neighbours[f]} - seen
            seen |= frontier
            for end in sorted(frontier):
                if end > start:
                    low, high = sorted((colours[start], colours[end]))
                    kind = classes.setdefault((low, high, path), len(classes))
                    pairs.append((start, end, kind, path))
    return pairs


class BondedPolynomial(torch.nn.Module):
    """Polynomials in 1 - exp(-b (r - r0)) of atoms that are one to three bonds apart.

    The variable is bounded at large distances, so that no power of it lets a bond dissociate outside the fitted range.

    Parameters
    ----------
    atomic_numbers : sequence of int
    bonds : iterable of (int, int)
        Pairs of bonded atoms, as indices in `atomic_numbers`.
    """

    first: Tensor
    second: Tensor
    pairs: Tensor
    kinds: Tensor
    equilibrium: Tensor
    steepness: Tensor
    coefficients: Tensor
    used: Tensor

    def __init__(self, atomic_numbers: Sequence[int], bonds: Iterable[tuple[int, int]]) -> None:
        super().__init__()
        pairs = pair_classes(atomic_numbers, bonds)
        n_classes = 1 + max((kind for _, _, kind, _ in pairs), default=-1)
        self.register_buffer("first", torch.tensor([a for a, *_ in pairs], dtype=torch.int64))
        self.register_buffer("second", torch.tensor([b for _, b, *_ in pairs], dtype=torch.int64))
        # Indices of the pairs in a table of all distances.
        self.register_buffer("pairs", self.first * len(atomic_numbers) + self.second)
        self.register_buffer("kinds", torch.tensor([kind for *_, kind, _ in pairs], dtype=torch.int64))
        self.register_buffer("equilibrium", torch.ones(n_classes, dtype=torch.float64))
        self.register_buffer("coefficients", torch.zeros(n_classes, max(DEGREES), dtype=torch.float64))
        steepness = torch.zeros(n_classes, dtype=torch.float64)
        used = torch.zeros(n_classes, max(DEGREES), dtype=torch.bool)
        for _, _, kind, path in pairs:
            steepness[kind] = STEEPNESS[path - 1]
            used[kind, : DEGREES[path - 1]] = True
        self.register_buffer("steepness", steepness)
        self.register_buffer("used", used, persistent=False)

    def _distances(self, positions: Tensor) -> Tensor:
        delta = positions.index_select(-2, self.first) - positions.index_select(-2, self.second)
        return torch.sqrt((delta * delta).sum(-1))

    def _stretch(self, distances: Tensor) -> Tensor:
        beyond = distances - self.equilibrium.index_select(0, self.kinds)
        return 1.0 - torch.exp(-self.steepness.index_select(0, self.kinds) * beyond)

    def terms(self, positions: Tensor) -> Tensor:
        """Return the powers summed over the pairs of a class, (..., n_classes * degree)."""
        stretch = self._stretch(self._distances(positions))
        powers = torch.stack([stretch, stretch**2, stretch**3, stretch**4], dim=-1)
        shape = list(positions.shape[:-2]) + [self.equilibrium.shape[0], powers.shape[-1]]  # noqa: RUF005  (TorchScript)
        zeros = torch.zeros(shape, dtype=positions.dtype, device=positions.device)
        return zeros.index_add(-2, self.kinds, powers).flatten(-2)

    def forward(self, positions: Tensor) -> Tensor:
        """Return the energies, (...) hartree, of geometries, (..., n, 3) bohr."""
        return self._sum(self._distances(positions))

    def energy(self, distances: Tensor) -> Tensor:
        """Return the energies, (...) hartree, of all distances, (..., n, n) bohr."""
        return self._sum(distances.flatten(-2).index_select(-1, self.pairs))

    def _sum(self, distances: Tensor) -> Tensor:
        stretch = self._stretch(distances)
        factors = self.coefficients.index_select(0, self.kinds)
        energy = factors[:, 3] * stretch
        for power in (2, 1, 0):
            energy = (energy + factors[:, power]) * stretch
        return energy.sum(-1)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def fit(self, positions: Tensor, gradients: Tensor, ridge: float = 1e-8) -> None:
        """Fit to gradients by linear least squares.

        Parameters
        ----------
        positions : (frames, n, 3) tensor, bohr
        gradients : (frames, n, 3) tensor, hartree/bohr
        ridge : float
            Relative size of the regularisation.
        """
        if len(self.first) == 0:
            return
        mean = self._distances(positions).mean(0)
        counts = torch.zeros_like(self.equilibrium).index_add(0, self.kinds, torch.ones_like(mean))
        self.equilibrium = torch.zeros_like(counts).index_add(0, self.kinds, mean) / counts
        leaf = positions.clone().requires_grad_(True)
        terms = self.terms(leaf)
        used = torch.nonzero(self.used.flatten()).flatten()
        rows = [torch.autograd.grad(terms[:, k].sum(), leaf, retain_graph=True)[0].flatten() for k in used.tolist()]
        design = torch.stack(rows, dim=1)
        scale = design.norm(dim=0).clamp(min=1e-12)
        scaled = design / scale
        normal = scaled.T @ scaled + ridge * torch.eye(scaled.shape[1], dtype=scaled.dtype)
        solution = torch.linalg.solve(normal, scaled.T @ gradients.flatten()) / scale
        coefficients = torch.zeros_like(self.coefficients).flatten()
        coefficients[used] = solution.detach()
        self.coefficients = coefficients.view(self.coefficients.shape)
