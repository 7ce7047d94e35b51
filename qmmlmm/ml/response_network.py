"""A learned potential of one active site: short range by a network, long range and field response by physics.

The network predicts charges, dipoles, polarisabilities and energies of the atoms. The energy of these in the
potential and field of the surroundings, and among themselves at any distance, is electrostatics and is not
learned, so that it holds in surroundings and at distances that no label has shown.
"""

# Annotations stay objects here (no `from __future__ import annotations`): TorchScript cannot read strings.

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Dict, Tuple  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor

from qmmlmm.errors import PotentialError
from qmmlmm.ml.bonded_polynomial import BondedPolynomial
from qmmlmm.ml.damped_multipoles import field_at_atoms, pair_energy
from qmmlmm.ml.dispersion import DispersionTail
from qmmlmm.ml.member_layers import MemberLinear, two_layers
from qmmlmm.ml.short_range_repulsion import ShortRangeRepulsion
from qmmlmm.units import ANGSTROM_IN_BOHR

Condition = tuple[int, int, int]
"""Total charge, multiplicity, electronic state."""


@dataclass(frozen=True)
class ResponseSettings:
    """Size and physics of a `ResponseNetwork`.

    Parameters
    ----------
    features : int
        Scalar features, and vector features, of an atom.
    layers : int
        Message-passing layers.
    radial_functions : int
    cutoff : float, angstrom
        Atoms further apart exchange no messages.
    near_cutoff : float, angstrom
        Charges of the surroundings within this distance of an atom act on it by a learned, directional term besides
        the electrostatics of its charge, dipole and polarisability. Zero: no such term.
    near_functions : int
        Radial functions of that term.
    long_range : bool
        False leaves out the electrostatics within the region, for comparison.
    response : bool
        False leaves out all that the surroundings do: mechanical embedding, for comparison.
    dispersion : str, optional
        Functional of the labels if they hold D3(BJ), such as "b3lyp-d3bj": the dispersion is then a fixed part of the
        energy, right at any distance, and the rest alone is learned.
    """

    features: int = 48
    layers: int = 2
    radial_functions: int = 16
    cutoff: float = 5.0
    near_cutoff: float = 5.0
    near_functions: int = 8
    long_range: bool = True
    response: bool = True
    dispersion: str | None = None


CHARGE_DAMPING = 0.6 / ANGSTROM_IN_BOHR
"""Beyond the network's cutoff the damped interaction of charges is Coulomb's to 1e-4."""

POLARISATION_DAMPING = 0.4 / ANGSTROM_IN_BOHR

FLOW_RANGE = 1.6 * ANGSTROM_IN_BOHR
"""Range of the flow of charge between two atoms."""


class ResponseNetwork(torch.nn.Module):
    """Energy of one active site in a field, for one or several members of a committee at once.

    Parameters
    ----------
    atomic_numbers : sequence of int
    bonds : iterable of (int, int)
        Positions of bonded atoms in `atomic_numbers`, for the polynomial that is fitted before training. May be empty.
    settings : ResponseSettings
    conditions : sequence of (int, int, int)
        Charge, multiplicity and electronic state that the model can be asked for.
    members : int
        Members of a committee: networks of the same size with weights of their own.
    dtype : torch.dtype
        Of the network; electrostatics and sums of energies are float64 always.

    Notes
    -----
    E = E_0 + E_bonded + E_ZBL + E_D3 + sum_i e_i + E_pair(q, mu) - 1/2 sum_i alpha_i |F_i|^2
        + sum_i (q_i phi_i - mu_i . F_i - 1/2 F_i . A_i . F_i) - 1/2 sum_{i<j} kappa_ij (phi_i - phi_j)^2 + E_near

    with phi and F of the surroundings; the field in the polarisation energy is that of the surroundings and of
    distant atoms of the region. A_i is positive definite, kappa_ij is positive: a field only lowers the energy. E_near
    is linear and quadratic in the moments sum_j Q_j R_p(r_ij) (1, u_ij, u_ij u_ij) of the near charges Q_j. Charges
    add up to the total charge: what is missing is shared by learned weights.

    Source of the messages: Schuett et al., PaiNN, ICML 2021 (arXiv:2102.03150), eqs. 7-8.
    """

    kinds: Tensor
    others: Tensor
    centers: Tensor
    near_centers: Tensor
    conditions: Tensor
    constants: Tensor
    uncertainty_scale: Tensor

    def __init__(
        self,
        atomic_numbers: Sequence[int],
        bonds: Iterable[tuple[int, int]] = (),
        settings: ResponseSettings = ResponseSettings(),
        conditions: Sequence[Condition] = ((0, 1, 0),),
        members: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if members < 1:
            raise PotentialError(f"a committee has one member or more, got {members}")
        if not conditions or len(set(conditions)) != len(conditions):
            raise PotentialError(f"conditions are different triples of integers, got {list(conditions)}")
        self.atomic_numbers = [int(number) for number in atomic_numbers]
        self.members = members
        self.features = settings.features
        self.cutoff = settings.cutoff
        self.near_cutoff = settings.near_cutoff if settings.response else 0.0
        self.near_functions = settings.near_functions
        self.long_range = settings.long_range
        self.response = settings.response
        self.angstrom = 1.0 / ANGSTROM_IN_BOHR
        self.charge_damping = CHARGE_DAMPING
        self.polarisation_damping = POLARISATION_DAMPING
        self.flow_range = FLOW_RANGE
        n_atoms = len(atomic_numbers)
        elements = sorted(set(atomic_numbers))
        width = settings.features
        self.register_buffer("kinds", torch.tensor([elements.index(z) for z in atomic_numbers]))
        self.register_buffer("others", ~torch.eye(n_atoms, dtype=torch.bool))
        self.register_buffer("centers", torch.linspace(0.7, settings.cutoff, settings.radial_functions, dtype=dtype))
        self.width = (settings.cutoff - 0.7) / settings.radial_functions
        near_reach = max(self.near_cutoff, 2.0)
        self.register_buffer(
            "near_centers", torch.linspace(1.0, near_reach - 0.5, settings.near_functions, dtype=dtype)
        )
        self.near_width = (near_reach - 1.5) / settings.near_functions
        self.register_buffer("conditions", torch.tensor(conditions, dtype=torch.int64))
        self.register_buffer("constants", torch.zeros(len(conditions), dtype=torch.float64))
        # What the spread of the members' forces is multiplied by to be their error; found after training.
        self.register_buffer("uncertainty_scale", torch.ones((), dtype=torch.float64))
        bonds = list(bonds)
        self.bonded = BondedPolynomial(atomic_numbers, bonds)
        self.repulsion = ShortRangeRepulsion(atomic_numbers, bonds)
        self.dispersion = None if settings.dispersion is None else DispersionTail(atomic_numbers, settings.dispersion)
        self.embedding = torch.nn.Parameter(torch.randn(members, len(elements), width, dtype=dtype))
        # Only differences between the conditions are learned here.
        self.condition_embedding = torch.nn.Parameter(
            torch.randn(members, len(conditions), len(elements), width, dtype=dtype)
            * (0.5 if len(conditions) > 1 else 0)
        )
        self.filters = torch.nn.ModuleList(
            MemberLinear(members, settings.radial_functions, 3 * width, dtype) for _ in range(settings.layers)
        )
        self.messages = torch.nn.ModuleList(
            two_layers(members, width, 3 * width, dtype) for _ in range(settings.layers)
        )
        self.mixers = torch.nn.ModuleList(
            MemberLinear(members, width, 2 * width, dtype, bias=False) for _ in range(settings.layers)
        )
        self.updates = torch.nn.ModuleList(
            two_layers(members, 2 * width, 3 * width, dtype) for _ in range(settings.layers)
        )
        # Energy, charge, its weight, isotropic polarisability, two weights of the charge flow.
        self.head = two_layers(members, width, 6, dtype)
        # Dipole and two axes of the polarisability.
        self.vector_head = MemberLinear(members, width, 3, dtype, bias=False)
        near = settings.near_functions if self.near_cutoff > 0.0 else 0
        # Linear and quadratic coefficients of each radial function; vectors for its first and second moment.
        self.near_head = two_layers(members, width, 5 * near, dtype)
        self.near_vector_head = MemberLinear(members, width, 3 * near, dtype, bias=False)
        self.near_mixer = MemberLinear(members, near, near, dtype, bias=False)
        # The outputs are of the order of one in these units.
        self.energy_scale = 0.02
        self.charge_scale = 0.2
        self.dipole_scale = 0.3
        self.polarisability_scale = 4.0
        self.axis_scale = 1.0
        self.flow_scale = 0.2
        self.near_scale = 0.01

    def known_conditions(self) -> list[Condition]:
        """Return what the model can be asked for: charge, multiplicity and electronic state."""
        return [(int(row[0]), int(row[1]), int(row[2])) for row in self.conditions.tolist()]

    def find_condition(self, charge: Tensor, multiplicity: Tensor, state: Tensor) -> Tensor:
        """Return the row of a condition in the model's table, () int64.

        Raises
        ------
        RuntimeError
            If the model was not made for it; the text names PotentialError.
        """
        asked = torch.stack([charge.reshape(()), multiplicity.reshape(()), state.reshape(())]).to(torch.float64)
        same = (self.conditions.to(torch.float64) - asked).abs().sum(-1) < 1e-6
        if not bool(same.any()):
            raise RuntimeError(
                "PotentialError: the model was not trained for this charge, multiplicity and electronic state"
            )
        return torch.argmax(same.to(torch.int64))

    def atom_features(self, positions: Tensor, condition: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return scalar, (members, batch, n, f), and vector, (members, batch, n, 3, f), features of the atoms.

        Parameters
        ----------
        positions : (members, batch, n, 3) tensor, bohr
        condition : (batch,) int64 tensor
            Rows of the table of conditions.
        """
        x = (positions * self.angstrom).to(self.centers.dtype)
        delta = x.unsqueeze(-3) - x.unsqueeze(-2)
        r = torch.sqrt((delta * delta).sum(-1) + (~self.others).to(x.dtype))
        unit = delta / r.unsqueeze(-1)
        inside = self.others & (r < self.cutoff)
        # Zero with its first and second derivative at the cutoff.
        envelope = torch.where(inside, (1.0 - (r / self.cutoff) ** 2) ** 3, torch.zeros_like(r))
        radial = torch.exp(-0.5 * ((r.unsqueeze(-1) - self.centers) / self.width) ** 2)
        s = (self.embedding.unsqueeze(1) + self.condition_embedding.index_select(1, condition))[:, :, self.kinds]
        v = torch.zeros((s.shape[0], s.shape[1], s.shape[2], 3, self.features), dtype=s.dtype, device=s.device)
        first = True
        for filter_, message, mixer, update in zip(self.filters, self.messages, self.mixers, self.updates):  # noqa: B905
            weights = filter_(radial) * envelope.unsqueeze(-1)
            ds, dv, dr = (message(s).unsqueeze(-3) * weights).split(self.features, dim=-1)
            s = s + ds.sum(-2)
            # For every atom and feature: sum over neighbours of unit vector times weight.
            v_new = torch.matmul(unit.transpose(-1, -2), dr)
            if not first:
                v_new = v_new + (dv.unsqueeze(-2) * v.unsqueeze(-4)).sum(-3)
            first = False
            v = v + v_new
            left, right = mixer(v).split(self.features, dim=-1)
            length = torch.sqrt((right * right).sum(-2) + 1e-6)
            a_ss, a_sv, a_vv = update(torch.cat([s, length], dim=-1)).split(self.features, dim=-1)
            s = s + a_ss + a_sv * (left * right).sum(-2)
            v = v + a_vv.unsqueeze(-2) * left
        return s, v

    def properties(self, positions: Tensor, condition: Tensor) -> Dict[str, Tensor]:  # noqa: UP006
        """Return what the network predicts for the atoms.

        Parameters
        ----------
        positions : (members, batch, n, 3) tensor, bohr
        condition : (batch,) int64 tensor

        Returns
        -------
        dict
            ``energies``, hartree, ``charges``, e, ``polarisabilities`` (isotropic), bohr^3: (members, batch, n);
            ``dipoles``, e bohr: (..., n, 3); ``axes``, bohr^1.5: (..., n, 3, 2), whose outer products are the
            anisotropic part of the polarisability; ``flow``: (..., n, 2); ``internal_field``, hartree/(e bohr):
            (..., n, 3), of distant atoms of the region; and with near charges the coefficients of their term.
        """
        s, v = self.atom_features(positions, condition)
        out = self.head(s).to(torch.float64)
        vectors = self.vector_head(v).to(torch.float64)
        charges = self.charge_scale * out[..., 1]
        weights = torch.nn.functional.softplus(out[..., 2]) + 1e-3
        total = self.conditions.index_select(0, condition)[:, 0].to(torch.float64)
        missing = total.unsqueeze(-1) - charges.sum(-1, keepdim=True)
        charges = charges + missing * weights / weights.sum(-1, keepdim=True)
        dipoles = self.dipole_scale * vectors[..., 0]
        found = {
            "energies": self.energy_scale * out[..., 0],
            "charges": charges,
            "dipoles": dipoles,
            "polarisabilities": self.polarisability_scale * torch.nn.functional.softplus(out[..., 3]),
            "axes": self.axis_scale * vectors[..., 1:],
            "flow": torch.nn.functional.softplus(out[..., 4:]),
            "internal_field": torch.zeros_like(dipoles),
        }
        if self.long_range:
            found["internal_field"] = field_at_atoms(positions, charges, dipoles, self.polarisation_damping)
        if self.near_cutoff > 0.0:
            found["near_scalars"] = self.near_head(s)
            found["near_vectors"] = self.near_vector_head(v)
        return found

    def fixed_energy(self, positions: Tensor) -> Tensor:
        """Return what no label changes, (...) hartree: repulsion of atoms on each other, and dispersion if asked for.

        Parameters
        ----------
        positions : (..., n, 3) tensor, bohr
        """
        energy = self.repulsion(positions)
        if self.dispersion is not None:
            energy = energy + self.dispersion(positions)
        return energy

    def intrinsic_energy(
        self,
        positions: Tensor,
        properties: Dict[str, Tensor],  # noqa: UP006
        condition: Tensor,
    ) -> Tensor:
        """Return the energies without surroundings, (members, batch) hartree."""
        energy = properties["energies"].sum(-1) + self.fixed_energy(positions) + self.bonded(positions)
        energy = energy + self.constants.index_select(0, condition)
        if self.long_range:
            field = properties["internal_field"]
            energy = energy + pair_energy(positions, properties["charges"], properties["dipoles"], self.charge_damping)
            energy = energy - 0.5 * (properties["polarisabilities"] * (field * field).sum(-1)).sum(-1)
        return energy

    def field_energy(
        self,
        positions: Tensor,
        properties: Dict[str, Tensor],  # noqa: UP006
        potential: Tensor,
        field: Tensor,
    ) -> Tensor:
        """Return the energies in the potential and field of the surroundings, (members, batch) hartree.

        Parameters
        ----------
        positions : (members, batch, n, 3) tensor, bohr
        properties : dict
            From `properties`.
        potential : (members, batch, n) tensor, hartree/e
        field : (members, batch, n, 3) tensor, hartree/(e bohr)
        """
        if not self.response:
            return torch.zeros_like(potential.sum(-1))
        charges, dipoles, axes = properties["charges"], properties["dipoles"], properties["axes"]
        square = ((field + 2.0 * properties["internal_field"]) * field).sum(-1)
        along = (axes * field.unsqueeze(-1)).sum(-2)
        energy = (charges * potential).sum(-1) - (dipoles * field).sum(-1).sum(-1)
        energy = (
            energy - 0.5 * (properties["polarisabilities"] * square).sum(-1) - 0.5 * (along * along).sum(-1).sum(-1)
        )
        delta = positions.unsqueeze(-2) - positions.unsqueeze(-3)
        decay = torch.exp(-(delta * delta).sum(-1) / (self.flow_range * self.flow_range))
        flow = properties["flow"]
        kappa = self.flow_scale * decay * torch.matmul(flow, flow.transpose(-1, -2))
        steps = potential.unsqueeze(-1) - potential.unsqueeze(-2)
        return energy - 0.25 * (kappa * steps * steps).sum(-1).sum(-1)

    def near_energy(
        self,
        positions: Tensor,
        properties: Dict[str, Tensor],  # noqa: UP006
        near_positions: Tensor,
        near_charges: Tensor,
    ) -> Tensor:
        """Return the energies of the directional term of the near charges, (members, batch) hartree.

        Parameters
        ----------
        positions : (members, batch, n, 3) tensor, bohr
        properties : dict
            From `properties`.
        near_positions : (members, batch, k, 3) tensor, bohr
        near_charges : (batch, k) tensor, e
            Zero for places that hold no charge.
        """
        delta = (near_positions.unsqueeze(-3) - positions.unsqueeze(-2)) * self.angstrom
        delta = delta.to(self.centers.dtype)
        r = torch.sqrt((delta * delta).sum(-1) + 1e-12)
        x = torch.clamp(r / self.near_cutoff, max=1.0)
        pull = (1.0 - x * x) ** 3 * near_charges.unsqueeze(-2).to(r.dtype)
        radial = torch.exp(-0.5 * ((r.unsqueeze(-1) - self.near_centers) / self.near_width) ** 2) * pull.unsqueeze(-1)
        unit = delta / r.unsqueeze(-1)
        xx, yy, zz = unit[..., 0:1], unit[..., 1:2], unit[..., 2:3]
        # Traceless second moments, orthonormal.
        second = torch.cat(
            [xx * yy, yy * zz, zz * xx, 0.5 * (xx * xx - yy * yy), (zz * zz - 1.0 / 3.0) * math.sqrt(0.75)], dim=-1
        ) * math.sqrt(2.0)
        angular = torch.cat([torch.ones_like(xx), unit, second], dim=-1)
        moments = torch.matmul(angular.transpose(-1, -2), radial)
        scalars = properties["near_scalars"]
        count = self.near_functions
        vectors = properties["near_vectors"]
        a, b, c = vectors[..., :count], vectors[..., count : 2 * count], vectors[..., 2 * count :]
        ax, ay, az, bx, by, bz = b[..., 0, :], b[..., 1, :], b[..., 2, :], c[..., 0, :], c[..., 1, :], c[..., 2, :]
        outer = torch.stack(
            [
                0.5 * (ax * by + ay * bx),
                0.5 * (ay * bz + az * by),
                0.5 * (az * bx + ax * bz),
                0.5 * (ax * bx - ay * by),
                (az * bz - (ax * bx + ay * by + az * bz) / 3.0) * math.sqrt(0.75),
            ],
            dim=-2,
        ) * math.sqrt(2.0)
        linear = scalars[..., :count].unsqueeze(-2) * moments[..., :1, :]
        energy = (linear.sum(-2) + (a * moments[..., 1:4, :]).sum(-2) + (outer * moments[..., 4:, :]).sum(-2)).sum(-1)
        mixed = self.near_mixer(moments)
        squares = mixed * mixed
        norms = torch.cat([squares[..., 0, :], squares[..., 1:4, :].sum(-2), squares[..., 4:, :].sum(-2)], dim=-1)
        softness = torch.nn.functional.softplus(scalars[..., count : 4 * count])
        energy = energy - 0.5 * (softness * norms).sum(-1)
        return self.near_scale * energy.to(torch.float64).sum(-1)

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        """Return the energy of one geometry, the mean of the members, as the contract of `qmmlmm.MLPotential` asks."""
        n = inputs["positions"].shape[0]
        positions = inputs["positions"].reshape(1, 1, n, 3).expand(self.members, 1, n, 3)
        state = inputs["state"] if "state" in inputs else torch.zeros_like(inputs["charge"])
        condition = self.find_condition(inputs["charge"], inputs["multiplicity"], state).reshape(1)
        properties = self.properties(positions, condition)
        energies = self.intrinsic_energy(positions, properties, condition)
        if "potential" in inputs:
            potential = inputs["potential"].reshape(1, 1, n).expand(self.members, 1, n)
            field = inputs["field"].reshape(1, 1, n, 3).expand(self.members, 1, n, 3)
            energies = energies + self.field_energy(positions, properties, potential, field)
            if self.near_cutoff > 0.0:
                with torch.no_grad():  # far ones have no part in the term
                    r = torch.cdist(inputs["near_positions"], inputs["positions"])
                    kept = torch.nonzero(r.min(dim=1)[0] * self.angstrom < self.near_cutoff)[:, 0]
                near = inputs["near_positions"].index_select(0, kept)
                near = near.reshape(1, 1, near.shape[0], 3).expand(self.members, 1, near.shape[0], 3)
                charges = inputs["near_charges"].index_select(0, kept).unsqueeze(0)
                energies = energies + self.near_energy(positions, properties, near, charges)
        return {"energy": energies.mean(), "member_energies": energies[:, 0]}
