"""A small equivariant network whose energy answers to the field of the surroundings.

It is made for one molecule or active site. Its energy is a short-range part plus charges, dipoles and
polarisabilities of the atoms, predicted from the geometry, in the potential and field of the surroundings: the
response to the field is physics and not learned.
"""

# Annotations stay objects here (no `from __future__ import annotations`): TorchScript cannot read strings.

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Dict, Tuple  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor

from qmmlmm.units import ANGSTROM_IN_BOHR


@dataclass(frozen=True)
class NetworkSettings:
    """Size of an `EmbeddedNetwork`.

    Parameters
    ----------
    features : int
        Scalar features, and vector features, of an atom.
    layers : int
        Message-passing layers.
    radial_functions : int
    cutoff : float, angstrom
        Atoms further apart exchange no messages.
    """

    features: int = 48
    layers: int = 2
    radial_functions: int = 16
    cutoff: float = 5.0


def pair_classes(
    atomic_numbers: Sequence[int], bonds: Iterable[tuple[int, int]], longest_path: int = 3
) -> list[tuple[int, int, int]]:
    """Return the pairs of atoms that are one to `longest_path` bonds apart, with a class that symmetry keeps.

    Two pairs are in one class if no exchange of equivalent atoms (the hydrogens of a methyl group, say) can
    tell them apart.

    Returns
    -------
    list of (int, int, int)
        First atom, second atom, class.
    """
    n = len(atomic_numbers)
    neighbours: list[set[int]] = [set() for _ in range(n)]
    for a, b in bonds:
        neighbours[a].add(b)
        neighbours[b].add(a)
    colours: list[int] = list(atomic_numbers)
    for _ in range(n):  # refinement as in Morgan's algorithm
        keys = [(colours[i], tuple(sorted(colours[j] for j in neighbours[i]))) for i in range(n)]
        ranks = {key: k for k, key in enumerate(sorted(set(keys)))}
        refined = [ranks[key] for key in keys]
        if len(set(refined)) == len(set(colours)):
            break
        colours = refined
    pairs: list[tuple[int, int, int]] = []
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
                    pairs.append((start, end, kind))
    return pairs


class EmbeddedNetwork(torch.nn.Module):
    """Energy of one molecule in a field: bonded polynomial, equivariant network, and response.

    Parameters
    ----------
    atomic_numbers : sequence of int
    bonds : iterable of (int, int)
        Positions of bonded atoms in `atomic_numbers`.
    settings : NetworkSettings
    dtype : torch.dtype
        Of the network; sums of energies are float64 always.

    Notes
    -----
    E = E_0 + sum_pairs polynomial(r) + sum_i e_i + sum_i q_i phi_i - mu_i . F_i - alpha_i F_i^2 / 2

    The polynomial over pairs up to three bonds apart takes most of the energy of stretching and bending and is
    fitted by linear least squares before the network is trained. Charges are shifted to add up to the total
    charge. Source of the messages: Schuett et al., PaiNN, ICML 2021 (arXiv:2102.03150), eqs. 7-8.
    """

    kinds: Tensor
    others: Tensor
    centers: Tensor
    first: Tensor
    second: Tensor
    pair_kinds: Tensor
    equilibrium: Tensor
    coefficients: Tensor
    constant: Tensor

    def __init__(
        self,
        atomic_numbers: Sequence[int],
        bonds: Iterable[tuple[int, int]],
        settings: NetworkSettings = NetworkSettings(),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.features = settings.features
        self.cutoff = settings.cutoff
        self.angstrom = 1.0 / ANGSTROM_IN_BOHR
        n_atoms = len(atomic_numbers)
        kinds = sorted(set(atomic_numbers))
        self.register_buffer("kinds", torch.tensor([kinds.index(z) for z in atomic_numbers]))
        self.register_buffer("others", ~torch.eye(n_atoms, dtype=torch.bool))
        self.register_buffer("centers", torch.linspace(0.7, settings.cutoff, settings.radial_functions, dtype=dtype))
        self.width = (settings.cutoff - 0.7) / settings.radial_functions
        width = settings.features
        self.embedding = torch.nn.Embedding(len(kinds), width, dtype=dtype)
        self.filters = torch.nn.ModuleList(
            torch.nn.Linear(settings.radial_functions, 3 * width, dtype=dtype) for _ in range(settings.layers)
        )
        self.messages = torch.nn.ModuleList(_two_layers(width, 3 * width, dtype) for _ in range(settings.layers))
        self.mixers = torch.nn.ModuleList(
            torch.nn.Linear(width, 2 * width, bias=False, dtype=dtype) for _ in range(settings.layers)
        )
        self.updates = torch.nn.ModuleList(_two_layers(2 * width, 3 * width, dtype) for _ in range(settings.layers))
        self.head = _two_layers(width, 4, dtype)
        self.dipole_mixer = torch.nn.Linear(width, 1, bias=False, dtype=dtype)
        # In e, e angstrom and e angstrom^2/V-like atomic units the outputs are of the order of one.
        self.energy_scale = 0.02
        self.charge_scale = 0.2
        self.dipole_scale = 0.3
        self.polarisability_scale = 4.0
        pairs = pair_classes(atomic_numbers, bonds)
        n_classes = 1 + max((kind for _, _, kind in pairs), default=-1)
        self.degree = 4
        self.register_buffer("first", torch.tensor([a for a, _, _ in pairs], dtype=torch.int64))
        self.register_buffer("second", torch.tensor([b for _, b, _ in pairs], dtype=torch.int64))
        self.register_buffer("pair_kinds", torch.tensor([kind for _, _, kind in pairs], dtype=torch.int64))
        self.register_buffer("equilibrium", torch.ones(n_classes, dtype=torch.float64))
        self.register_buffer("coefficients", torch.zeros(n_classes, self.degree, dtype=torch.float64))
        self.register_buffer("constant", torch.zeros((), dtype=torch.float64))

    def pair_terms(self, positions: Tensor) -> Tensor:
        """Return the polynomials' terms summed over pairs of a class, (batch, n_classes * degree)."""
        delta = (positions[:, self.first] - positions[:, self.second]) * self.angstrom
        stretch = torch.sqrt((delta * delta).sum(-1)) - self.equilibrium[self.pair_kinds]
        powers = torch.stack([stretch, stretch**2, stretch**3, stretch**4], dim=-1)
        terms = torch.zeros(
            (positions.shape[0], self.coefficients.shape[0], self.degree),
            dtype=positions.dtype,
            device=positions.device,
        )
        return terms.index_add(1, self.pair_kinds, powers).flatten(1)

    def atom_properties(self, positions: Tensor, charge: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        """Return what the network predicts for the atoms.

        Parameters
        ----------
        positions : (batch, n, 3) tensor, bohr
        charge : () tensor, e

        Returns
        -------
        energies : (batch, n) tensor, hartree
        charges : (batch, n) tensor, e
        dipoles : (batch, n, 3) tensor, e bohr
        polarisabilities : (batch, n) tensor, bohr^3
        """
        x = (positions * self.angstrom).to(self.centers.dtype)
        delta = x[:, None, :, :] - x[:, :, None, :]
        r = torch.sqrt((delta * delta).sum(-1) + (~self.others).to(x.dtype))
        unit = delta / r[..., None]
        inside = self.others & (r < self.cutoff)
        # Zero with its first and second derivative at the cutoff.
        envelope = torch.where(inside, (1.0 - (r / self.cutoff) ** 2) ** 3, torch.zeros_like(r))
        radial = torch.exp(-0.5 * ((r[..., None] - self.centers) / self.width) ** 2)
        s = self.embedding(self.kinds).unsqueeze(0).expand(x.shape[0], -1, -1)
        v = torch.zeros(s.shape[0], s.shape[1], 3, self.features, dtype=s.dtype, device=s.device)
        for filter_, message, mixer, update in zip(self.filters, self.messages, self.mixers, self.updates):  # noqa: B905
            weights = filter_(radial) * envelope[..., None]
            ds, dv, dr = (message(s)[:, None, :, :] * weights).split(self.features, dim=-1)
            s = s + ds.sum(2)
            v = v + torch.einsum("bijf,bjcf->bicf", dv, v) + torch.einsum("bijc,bijf->bicf", unit, dr)
            left, right = mixer(v).split(self.features, dim=-1)
            length = torch.sqrt((right * right).sum(2) + 1e-6)
            a_ss, a_sv, a_vv = update(torch.cat([s, length], dim=-1)).split(self.features, dim=-1)
            s = s + a_ss + a_sv * (left * right).sum(2)
            v = v + a_vv[:, :, None, :] * left
        out = self.head(s).to(torch.float64)
        charges = self.charge_scale * out[..., 1]
        charges = charges + (charge - charges.sum(-1, keepdim=True)) / charges.shape[-1]
        dipoles = self.dipole_scale * self.dipole_mixer(v)[..., 0].to(torch.float64)
        polarisabilities = self.polarisability_scale * torch.nn.functional.softplus(out[..., 3])
        return self.energy_scale * out[..., 0], charges, dipoles, polarisabilities

    def energy(self, positions: Tensor, charge: Tensor, potential: Tensor, field: Tensor) -> Tensor:
        """Return the energies of a batch of geometries in their fields.

        Parameters
        ----------
        positions : (batch, n, 3) tensor, bohr
        charge : () tensor, e
        potential : (batch, n) tensor, hartree/e
        field : (batch, n, 3) tensor, hartree/(e bohr)

        Returns
        -------
        (batch,) tensor, hartree
        """
        energies, charges, dipoles, polarisabilities = self.atom_properties(positions, charge)
        bonded = torch.matmul(self.pair_terms(positions), self.coefficients.flatten())
        in_field = (
            (charges * potential).sum(-1)
            - (dipoles * field).sum((-2, -1))
            - 0.5 * (polarisabilities * (field * field).sum(-1)).sum(-1)
        )
        return self.constant + bonded + energies.sum(-1) + in_field

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        """Return the energy of one geometry, as the contract of `qmmlmm.MLPotential` asks."""
        positions = inputs["positions"][None]
        if "potential" in inputs:
            potential = inputs["potential"][None]
            field = inputs["field"][None]
        else:
            potential = torch.zeros_like(positions[..., 0])
            field = torch.zeros_like(positions)
        return {"energy": self.energy(positions, inputs["charge"], potential, field)}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def fit_bonded(self, positions: Tensor, energies: Tensor, gradients: Tensor, ridge: float = 1e-8) -> None:
        """Fit constant and polynomial to energies and gradients by linear least squares.

        Parameters
        ----------
        positions : (frames, n, 3) tensor, bohr
        energies : (frames,) tensor, hartree
        gradients : (frames, n, 3) tensor, hartree/bohr
        ridge : float
            Relative size of the regularisation.
        """
        delta = (positions[:, self.first] - positions[:, self.second]) * self.angstrom
        mean = delta.norm(dim=-1).mean(0)
        counts = torch.zeros_like(self.equilibrium).index_add(0, self.pair_kinds, torch.ones_like(mean))
        self.equilibrium = torch.zeros_like(counts).index_add(0, self.pair_kinds, mean) / counts
        leaf = positions.clone().requires_grad_(True)
        terms = self.pair_terms(leaf)
        rows = [
            torch.autograd.grad(terms[:, k].sum(), leaf, retain_graph=True)[0].flatten() for k in range(terms.shape[1])
        ]
        design = torch.stack(rows, dim=1)
        scale = design.norm(dim=0).clamp(min=1e-12)
        scaled = design / scale
        normal = scaled.T @ scaled + ridge * torch.eye(scaled.shape[1], dtype=scaled.dtype)
        solution = torch.linalg.solve(normal, scaled.T @ gradients.flatten()) / scale
        self.coefficients = solution.view(self.coefficients.shape).detach()
        self.constant = (energies - terms.detach() @ solution).mean().detach()


def _two_layers(width_in: int, width_out: int, dtype: torch.dtype) -> torch.nn.Sequential:
    hidden = max(width_in, 16) if width_out < width_in else width_in
    return torch.nn.Sequential(
        torch.nn.Linear(width_in, hidden, dtype=dtype),
        torch.nn.SiLU(),
        torch.nn.Linear(hidden, width_out, dtype=dtype),
    )
