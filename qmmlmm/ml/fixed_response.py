"""The response of one molecule to a field, linear in its coefficients, which a dozen QM labels determine.

Charges and dipoles of the atoms follow the geometry; polarisabilities and a term of near charges are fixed. Equivalent
atoms have the same coefficients. The energy is zero without surroundings.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.durable_files import replace_file
from qmmlmm.elements import check_elements
from qmmlmm.errors import PotentialError, listed
from qmmlmm.ml.bonded_polynomial import atom_classes, bonded_atoms
from qmmlmm.setting_checks import check_array, check_atoms, check_path, check_whole_number

LONGEST_PATH = 3
"""Largest number of bonds between two atoms with charge flow."""

NEAR_WIDTHS = (2.5, 4.0)
"""Widths of the Gaussian functions of the distance to near charges, bohr."""

NEAR_REACH = 23.0
"""Distance from every atom beyond which their Gaussian functions are below 1e-14, bohr."""

FORMAT = 1

Pairs = list[tuple[int, int, int]]
"""First atom, second atom, class."""


class FixedResponse:
    """Energy of a molecule in the potential and field of its surroundings.

    Parameters
    ----------
    atomic_numbers : sequence of int
    bonds : iterable of (int, int)
        Bonds, which connect all atoms.
    charge : int
        Total charge.
    distances : (n_pair_classes,) float array, bohr, optional
        Mean distance of each class of pairs.
    coefficients : (n_coefficients,) float array, optional
        Zeros if not given; `qmmlmm.learning.fit_response` finds them.

    Raises
    ------
    PotentialError
        If the bonds do not connect the atoms, or an array has another length.

    Notes
    -----
    E = sum_i (q_i phi_i - mu_i . F_i - 1/2 alpha_i |F_i|^2 - 1/2 sum_j a_ij (u_ij . F_i)^2)
        - 1/2 sum_ij kappa_ij (phi_i - phi_j)^2 + E_near

    q_i is an equal share of the total charge plus the flow from other atoms up to three bonds away,
    s_ij = c0 + c1 (r_ij - r0) + c2 (r_ij - r0)^2, with the opposite sign at the other atom. mu_i is along the
    directions u_ij to atoms one and two bonds away, (m0 + m1 (r_ij - r0)) u_ij. E_near has for each near charge Q_k the
    terms Q_k exp(-r_ik^2/w^2) times 1, cos and cos^2 - 1/3 of the angles between its direction and the atom's bonds.
    """

    def __init__(
        self,
        atomic_numbers: Sequence[int],
        bonds: Iterable[tuple[int, int]],
        charge: int = 0,
        distances: object = None,
        coefficients: object = None,
    ) -> None:
        self.atomic_numbers = list(check_elements("atomic_numbers", atomic_numbers))
        n = len(self.atomic_numbers)
        pairs = [check_atoms("bonds", pair, n, count=2, error=PotentialError) for pair in bonds]
        self.bonds = [(int(i), int(j)) for i, j in pairs]
        self.charge = check_whole_number("charge", charge, at_least=-1000, at_most=1000, error=PotentialError)
        colours = atom_classes(self.atomic_numbers, self.bonds)
        kinds = sorted(set(colours))
        self.n_kinds = len(kinds)
        self._kinds = torch.tensor([kinds.index(colour) for colour in colours])
        found = _directed_pairs(n, self.bonds)
        if n > 1 and len({j for i, j, _ in _directed_pairs(n, self.bonds, n) if i == 0}) < n - 1:
            raise PotentialError("the bonds do not connect all atoms; a fixed response is that of one molecule")
        keys = [(colours[i], colours[j], path) for i, j, path in found]
        self.n_classes = len(set(keys))
        order = {key: k for k, key in enumerate(sorted(set(keys)))}
        self._all = _columns([(i, j, order[key]) for (i, j, _), key in zip(found, keys, strict=True)])
        self._pairs: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._classes: dict[str, Tensor] = {}
        choices = {
            # Between equivalent atoms nothing flows in one direction.
            "flow": [low < high for low, high, _ in keys],
            "arms": [path <= 2 for *_, path in keys],
            "axes": [path == 1 for *_, path in keys],
            "kappa": [path <= 2 and low <= high for low, high, path in keys],
        }
        self.counts: dict[str, int] = {}
        for name, chosen in choices.items():
            mine = sorted({key for key, is_chosen in zip(keys, chosen, strict=True) if is_chosen})
            index = {key: k for k, key in enumerate(mine)}
            self.counts[name] = len(mine)
            some = zip(found, keys, chosen, strict=True)
            self._pairs[name] = _columns([(i, j, index[key]) for (i, j, _), key, is_chosen in some if is_chosen])
            self._classes[name] = torch.tensor([order[key] for key in mine], dtype=torch.int64)
        self._widths = torch.tensor(NEAR_WIDTHS, dtype=torch.float64)
        near = len(NEAR_WIDTHS)
        self.sizes = [
            3 * self.counts["flow"], 2 * self.counts["arms"], self.n_kinds, self.counts["axes"], self.counts["kappa"],
            near * self.n_kinds, 2 * near * self.counts["axes"],
        ]  # fmt: skip
        self.distances = _numbers("distances", distances, self.n_classes)
        self.coefficients = _numbers("coefficients", coefficients, sum(self.sizes))

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients."""
        return sum(self.sizes)

    def fingerprint(self) -> str:
        """Return a hash of the response, the same for the same coefficients everywhere."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()[:16]

    def check(self, specification: RegionSpecification) -> None:
        """Raise PotentialError if the response is of another molecule or another charge."""
        numbers = [int(z) for z in specification.atomic_numbers]
        if numbers != self.atomic_numbers or specification.charge != self.charge:
            raise PotentialError(
                f"term {specification.name!r}: the response is for the atoms {listed(self.atomic_numbers, 30)} and "
                f"charge {self.charge}; the region has {listed(numbers, 30)} and charge {specification.charge}"
            )

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the energy in the surroundings, as the contract of `qmmlmm.MLPotential`; zero without them."""
        if "potential" not in inputs:
            return {"energy": 0.0 * inputs["positions"].sum()}
        x, near, charges = inputs["positions"], inputs["near_positions"], inputs["near_charges"]
        with torch.no_grad():
            close = (torch.cdist(near, x) < NEAR_REACH).any(1).nonzero()[:, 0]
        field = inputs["potential"], inputs["field"]
        return {"energy": self.energy(self.coefficients, x, *field, near[close], charges[close])}

    def energy(
        self, coefficients: Tensor, x: Tensor, potential: Tensor, field: Tensor, near: Tensor, near_charges: Tensor
    ) -> Tensor:
        """Return the energy for coefficients, in which it is linear.

        Parameters
        ----------
        coefficients : (n_coefficients,) tensor
        x : (n, 3) tensor, bohr
        potential, field : (n,) and (n, 3) tensors, hartree/e and hartree/(e bohr)
        near, near_charges : (k, 3) and (k,) tensors, bohr and e
        """
        flow, arms, isotropic, axes, kappa, spheres, directed = coefficients.split(self.sizes)
        first, second, kind = self._pairs["flow"]
        beyond = self._beyond("flow", x, kind)
        c = flow.reshape(3, -1)[:, kind]
        moved = c[0] + (c[1] + c[2] * beyond) * beyond
        energy = (moved * (potential[first] - potential[second])).sum() + self.charge * potential.mean()
        first, second, kind = self._pairs["arms"]
        m = arms.reshape(2, -1)[:, kind]
        sizes = m[0] + m[1] * self._beyond("arms", x, kind)
        energy = energy - (sizes * (_directions(x, first, second) * field[first]).sum(-1)).sum()
        energy = energy - 0.5 * (isotropic[self._kinds] * field.square().sum(-1)).sum()
        first, second, kind = self._pairs["axes"]
        bonds = _directions(x, first, second)
        energy = energy - 0.5 * (axes[kind] * (bonds * field[first]).sum(-1).square()).sum()
        energy = energy + self._near(spheres, directed, bonds, x, near, near_charges)
        first, second, kind = self._pairs["kappa"]
        return energy - 0.5 * (kappa[kind] * (potential[first] - potential[second]).square()).sum()

    def _near(
        self, spheres: Tensor, directed: Tensor, bonds: Tensor, x: Tensor, near: Tensor, charges: Tensor
    ) -> Tensor:
        """Return the energy of the term of near charges."""
        delta = near[None, :, :] - x[:, None, :]
        square = delta.square().sum(-1)
        unit = delta / square.clamp(min=1e-12).sqrt().unsqueeze(-1)
        # (widths, n, k)
        close = torch.exp(-square / self._widths[:, None, None].square()) * charges
        first, _, kind = self._pairs["axes"]
        sphere = (spheres.reshape(len(self._widths), -1)[:, self._kinds] * close.sum(-1)).sum()
        cosine = (unit[first] * bonds[:, None, :]).sum(-1)
        both = torch.stack([cosine, cosine.square() - 1.0 / 3.0])
        weights = directed.reshape(2, len(self._widths), -1)[:, :, kind]
        return sphere + torch.einsum("twp,tpk,wpk->", weights, both, close[:, first])

    def _beyond(self, name: str, x: Tensor, kind: Tensor) -> Tensor:
        """Return the distances of pairs less their means."""
        first, second, _ = self._pairs[name]
        return (x[second] - x[first]).square().sum(-1).sqrt() - self.distances[self._classes[name][kind]]

    def mean_distances(self, positions: Tensor) -> Tensor:
        """Return the mean distance of each class of pairs, (n_classes,) bohr, in geometries, (frames, n, 3) bohr."""
        first, second, kind = self._all
        mean = (positions[:, second] - positions[:, first]).square().sum(-1).sqrt().mean(0)
        zeros = torch.zeros(self.n_classes, dtype=torch.float64)
        return zeros.index_add(0, kind, mean) / zeros.index_add(0, kind, torch.ones_like(mean))

    def _content(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "atomic_numbers": self.atomic_numbers,
            "bonds": self.bonds,
            "charge": self.charge,
            "distances": self.distances.tolist(),
            "coefficients": self.coefficients.tolist(),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file with numbers and no code, for `load`.

        Raises
        ------
        PotentialError
            If it cannot be written.
        """
        target = check_path("path", path, PotentialError)
        try:
            replace_file(target, (json.dumps(self._content(), indent=1) + "\n").encode())
        except OSError as error:
            raise PotentialError(
                f"the response {str(target)!r} cannot be written: {error.strerror or error}"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FixedResponse:
        """Read a file of `save`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        PotentialError
            If it is something else, or of another format.
        """
        source = check_path("path", path, PotentialError)
        try:
            content = json.loads(source.read_text(encoding="utf-8"))
            names = ("atomic_numbers", "bonds", "charge", "distances", "coefficients")
            if content["format"] != FORMAT:
                raise PotentialError(
                    f"{str(source)!r} has the format {content['format']!r}, this qmmlmm reads {FORMAT}"
                )
            return cls(*(content[name] for name in names))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, PotentialError):
                raise
            raise PotentialError(f"{str(source)!r} is no file of a FixedResponse: {error!r}") from error


def _columns(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    table = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 3)
    return table[:, 0].contiguous(), table[:, 1].contiguous(), table[:, 2].contiguous()


def _numbers(name: str, given: object, length: int) -> Tensor:
    if given is None:
        return torch.zeros(length, dtype=torch.float64)
    return torch.tensor(check_array(name, given, (length,), error=PotentialError), dtype=torch.float64)


def _directions(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    step = x[second] - x[first]
    return step / step.square().sum(-1, keepdim=True).sqrt()


def _directed_pairs(n: int, bonds: Iterable[tuple[int, int]], longest: int = LONGEST_PATH) -> Pairs:
    """Return both directions of all pairs up to a number of bonds apart, with this number."""
    neighbours = bonded_atoms(n, bonds)
    pairs: Pairs = []
    for start in range(n):
        frontier, seen = {start}, {start}
        for path in range(1, longest + 1):
            frontier = {m for f in frontier for m in neighbours[f]} - seen
            seen |= frontier
            pairs += [(start, end, path) for end in sorted(frontier)]
    return pairs
