"""A learned potential of one active site: a network at short range, physics at long range and in the field.

The network predicts charges, dipoles, polarisabilities and energies of the atoms. Their energy in the potential and
field of the surroundings, and among each other at any distance, is electrostatics and is not learned, so that it is
valid in surroundings and at distances without labels.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

from collections.abc import Iterable, Sequence
from typing import Dict, Tuple  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor

from qmmlmm.coupling.level_of_theory import Difference
from qmmlmm.elements import check_elements
from qmmlmm.errors import PotentialError, listed
from qmmlmm.ml.bonded_polynomial import BondedPolynomial
from qmmlmm.ml.conditions import Condition, check_conditions, find_condition
from qmmlmm.ml.damped_multipoles import field_at_atoms, own_distance, pair_energy, pair_geometry
from qmmlmm.ml.dispersion import DispersionTail
from qmmlmm.ml.member_layers import MemberLinear, PairFilter, two_layers
from qmmlmm.ml.near_moments import N_MOMENTS, NearMoments
from qmmlmm.ml.response_settings import DEFAULT_SETTINGS, FIRST_CENTRE, ResponseSettings
from qmmlmm.ml.short_range_repulsion import ShortRangeRepulsion
from qmmlmm.ml.tensor_features import TensorFeatures
from qmmlmm.setting_checks import check_atoms, check_flag, check_instance, check_whole_number
from qmmlmm.units import ANGSTROM_IN_BOHR

CHARGE_DAMPING = 0.6 / ANGSTROM_IN_BOHR
"""Damping of charges, 1/bohr: beyond the network's cutoff their interaction is Coulomb's to 1e-4."""

POLARISATION_DAMPING = 0.4 / ANGSTROM_IN_BOHR
"""Damping of the field of distant atoms of the region, 1/bohr."""

FLOW_RANGE = 1.6 * ANGSTROM_IN_BOHR
"""Range of the charge flow between two atoms, bohr."""


def _check_response(settings: ResponseSettings, difference: Difference | None) -> None:
    """Raise PotentialError if a network of the response alone is to have something else."""
    if difference is not None:
        raise PotentialError(f"the response is that of one level, and the network is the difference {difference}")
    if not settings.response:
        raise PotentialError("response=False leaves nothing of a network of the response; leave it out")
    if settings.dispersion is not None:
        raise PotentialError(
            f"dispersion={settings.dispersion!r} is a part of the energy in a vacuum, and a response has none; leave "
            "dispersion out"
        )


def _check_general(response_only: bool, bonds: Iterable[tuple[int, int]]) -> None:
    """Raise PotentialError if a network of many molecules is to have something of one molecule."""
    if not response_only:
        raise PotentialError(
            "elements: a network of many molecules is that of the response alone; give response_only=True too"
        )
    if list(bonds):
        raise PotentialError("bonds are those of one molecule; a network of many has none, leave them out")


class ResponseNetwork(torch.nn.Module):
    """Energy of one active site in a field, for one or several members of a committee at once.

    Parameters
    ----------
    atomic_numbers : sequence of int
    bonds : iterable of (int, int)
        Pairs of bonded atoms, as indices in `atomic_numbers`, for the polynomial that is fitted before training. May be
        empty.
    settings : ResponseSettings
    conditions : sequence of (int, int, int)
        Charge, multiplicity and electronic state of each surface of the model.
    members : int
        Number of members of a committee: networks of the same size with separate weights.
    dtype : torch.dtype
        Type of the network; electrostatics and sums of energies are always float64.
    difference : Difference, optional
        The two levels whose difference the network learns. By default it learns the energy of one level.
    response_only : bool
        Whether the energy in a vacuum is zero, and the network learns only the response to the surroundings, for
        `ResponseModel`.
    elements : sequence of int, optional
        Elements of a network of many molecules, for `GeneralResponse`: nothing in it depends on the molecule but the
        elements and positions of the atoms, and the total charge to which charges add up. By default the network is for
        one molecule, and knows its elements.

    Notes
    -----
    E = E_0 + E_bonded + E_ZBL + E_D3 + sum_i e_i + E_pair(q, mu) - 1/2 sum_i alpha_i |F_i|^2
        + sum_i (q_i phi_i - mu_i . F_i - 1/2 F_i . A_i . F_i) - 1/2 sum_{i<j} kappa_ij (phi_i - phi_j)^2 + E_near

    with phi and F of the surroundings; the field in the polarisation energy is that of the surroundings and of
    distant atoms of the region. A_i is positive definite, kappa_ij is positive: a field only lowers the energy. E_near
    is linear and quadratic in the moments sum_j Q_j R_p(r_ij) (1, u_ij, u_ij u_ij) of the near charges Q_j. Charges
    add up to the total charge: learned weights distribute the difference.

    For a difference between two levels the charges add up to zero, E_ZBL and E_pair are the base's and left out, and
    what is positive for one level may have either sign: alpha_i, A_i, kappa_ij and the quadratic part of E_near.

    A network of the response alone has the terms with phi, F of the surroundings and near charges, and no others.

    Source of the messages: Schuett et al., PaiNN, ICML 2021 (arXiv:2102.03150), eqs. 7-8. The tensors T_i of
    `TensorFeatures` are additional: they enter the state of an atom through |T_i| and v_i . T_i . v_i, its vectors
    through T_i . v_i, and E_near as coefficients of the moments u_ij u_ij.
    """

    kinds: Tensor
    centers: Tensor
    apart: Tensor
    near_norms: Tensor
    conditions: Tensor
    constants: Tensor
    uncertainty_scale: Tensor
    separate_parts: Tensor

    def __init__(
        self,
        atomic_numbers: Sequence[int],
        bonds: Iterable[tuple[int, int]] = (),
        settings: ResponseSettings = DEFAULT_SETTINGS,
        conditions: Sequence[Condition] = ((0, 1, 0),),
        members: int = 1,
        dtype: torch.dtype = torch.float32,
        difference: Difference | None = None,
        response_only: bool = False,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        members = check_whole_number("members", members, what="a number of committee members", error=PotentialError)
        conditions = check_conditions(conditions)
        settings = check_instance("settings", settings, ResponseSettings, error=PotentialError)
        if difference is not None:
            check_instance("difference", difference, Difference, error=PotentialError)
            if settings.dispersion is not None:
                raise PotentialError(
                    f"dispersion={settings.dispersion!r} is a part of the energy of one level, and the network is the "
                    f"difference {difference}; leave dispersion out"
                )
        self.response_only = check_flag("response_only", response_only, PotentialError)
        if response_only:
            _check_response(settings, difference)
        self.difference = difference
        self.is_difference = difference is not None
        self.atomic_numbers = list(check_elements("atomic_numbers", atomic_numbers))
        atomic_numbers = self.atomic_numbers
        self.is_general = elements is not None
        if elements is not None:
            _check_general(self.response_only, bonds)
        known = sorted(set(atomic_numbers if elements is None else check_elements("elements", elements)))
        self.elements = known
        n = len(atomic_numbers)
        pairs = [check_atoms("bonds", pair, n, count=2, error=PotentialError) for pair in bonds]
        bonds = [(i, j) for i, j in pairs]
        self.settings = settings
        self.bonds = bonds
        self.members = members
        self.features = settings.features
        self.cutoff = settings.cutoff
        self.near_cutoff = settings.near_cutoff if settings.response else 0.0
        self.near_functions = settings.near_functions
        # The electrostatics of charge differences is not the difference of two electrostatics.
        self.long_range = settings.long_range and difference is None
        self.response = settings.response
        self.angstrom = 1.0 / ANGSTROM_IN_BOHR
        self.charge_damping = CHARGE_DAMPING
        self.polarisation_damping = POLARISATION_DAMPING
        self.flow_range = FLOW_RANGE
        width = settings.features
        self.register_buffer("kinds", self._kinds_of(atomic_numbers))
        self.register_buffer(
            "centers", torch.linspace(FIRST_CENTRE, settings.cutoff, settings.radial_functions, dtype=dtype)
        )
        self.register_buffer("apart", own_distance(len(atomic_numbers)), persistent=False)
        self.width = (settings.cutoff - FIRST_CENTRE) / settings.radial_functions
        self.near = NearMoments(max(self.near_cutoff, 2.0), settings.near_functions, dtype)
        # From the squares of the moments 1, u_x, ..., u_z u_z to the norms of monopole, dipole, traceless quadrupole.
        norms = torch.zeros(3, N_MOMENTS, dtype=dtype)
        norms[0, 0] = norms[1, 1:4] = norms[2, 4:] = 1.0
        norms[2, 0] = -1.0 / 3.0
        self.register_buffer("near_norms", norms)
        self.register_buffer("conditions", torch.tensor(conditions, dtype=torch.int64))
        self.register_buffer("constants", torch.zeros(len(conditions), dtype=torch.float64))
        # Factor from the spread of the members' forces to their error; found after training.
        self.register_buffer("uncertainty_scale", torch.ones((), dtype=torch.float64))
        # Whether vacuum and interaction had separate labels, see `qmmlmm.embedding.committee`.
        self.register_buffer("separate_parts", torch.zeros((), dtype=torch.bool))
        self.bonded = BondedPolynomial(atomic_numbers, bonds)
        self.repulsion = ShortRangeRepulsion(atomic_numbers, bonds)
        self.dispersion = None if settings.dispersion is None else DispersionTail(atomic_numbers, settings.dispersion)
        self.embedding = torch.nn.Parameter(torch.randn(members, len(known), width, dtype=dtype))
        # Only differences between the conditions.
        self.condition_embedding = torch.nn.Parameter(
            torch.randn(members, len(conditions), len(known), width, dtype=dtype)
            * (0.5 if len(conditions) > 1 and not self.is_general else 0)
        )
        # What an atom is in a charged molecule depends on its neighbours, and not on a charge far away.
        self.condition_embedding.requires_grad_(not self.is_general)

        def filters(count: int) -> torch.nn.ModuleList:
            return torch.nn.ModuleList(
                PairFilter(members, settings.radial_functions + 1, width, dtype) for _ in range(count)
            )

        # From scalars to scalars and vectors, and from vectors to vectors; before the first layer there are no vectors.
        self.scalar_filters, self.vector_filters = filters(settings.layers), filters(settings.layers)
        self.carrying_filters = filters(settings.layers)
        self.messages = torch.nn.ModuleList(
            two_layers(members, width, 3 * width, dtype) for _ in range(settings.layers)
        )
        self.mixers = torch.nn.ModuleList(
            MemberLinear(members, width, 2 * width, dtype, bias=False) for _ in range(settings.layers)
        )
        self.updates = torch.nn.ModuleList(
            two_layers(members, 2 * width, 3 * width, dtype) for _ in range(settings.layers)
        )
        near = settings.near_functions if self.near_cutoff > 0.0 else 0
        # Tensors for the state of an atom after the first layer, and others for near charges after the last.
        tensors = settings.tensor_features
        self.tensor_features = tensors
        self.tensors = TensorFeatures(members, settings.radial_functions + 1, width, tensors, dtype)
        self.tensor_directions = MemberLinear(members, width, 2 * tensors, dtype, bias=False)
        self.tensor_update = two_layers(members, 2 * tensors + width if tensors else 0, width, dtype)
        self.tensor_mixer = MemberLinear(members, tensors, width, dtype, bias=False)
        near_tensors = tensors if near else 0
        self.near_tensors = TensorFeatures(members, settings.radial_functions + 1, width, near_tensors, dtype)
        self.near_tensor_gate = MemberLinear(members, width, near_tensors, dtype)
        self.near_tensor_head = MemberLinear(members, near_tensors, near, dtype, bias=False)
        # Energy, charge, its weight, isotropic polarisability, two weights of the charge flow.
        self.head = two_layers(members, width, 6, dtype)
        # One linear and three quadratic coefficients for each radial function of the near charges.
        self.near_head = two_layers(members, width, 4 * near, dtype)
        # Dipole, two axes of the polarisability; three vectors for each radial function.
        self.vector_head = MemberLinear(members, width, 3 + 3 * near, dtype, bias=False)
        self.near_mixer = MemberLinear(members, near, near, dtype, bias=False)
        shared = settings.near_features if near else 0
        self.near_features = shared
        self.near_sender = MemberLinear(members, near, shared, dtype, bias=False)
        self.near_filter = PairFilter(members, settings.radial_functions + 1, shared, dtype)
        self.near_hidden = MemberLinear(members, 3 * shared, 2 * shared, dtype, bias=False)
        # From the state of an atom: weights of neighbours, directions and response.
        self.near_gate = MemberLinear(members, width, shared, dtype)
        self.near_directions = MemberLinear(members, width, shared, dtype, bias=False)
        self.near_state = MemberLinear(members, width, 2 * shared, dtype)
        self.near_energies = MemberLinear(members, width, 2 * shared, dtype)
        # The outputs are of the order of one in these units.
        self.energy_scale = 0.02
        self.charge_scale = 0.2
        self.dipole_scale = 0.3
        self.polarisability_scale = 4.0
        self.axis_scale = 1.0
        self.flow_scale = 0.2
        self.near_scale = 0.01

    def _kinds_of(self, atomic_numbers: Sequence[int]) -> Tensor:
        """Return the places of atoms in the table of elements, (n,) int64."""
        unknown = sorted(set(atomic_numbers) - set(self.elements))
        if unknown:
            raise PotentialError(
                f"the network knows the elements {listed(self.elements, 20)}, and there are atoms of {unknown}; train "
                "it with molecules that have them"
            )
        return torch.tensor([self.elements.index(z) for z in atomic_numbers])

    def become(self, atomic_numbers: Sequence[int]) -> None:
        """Take the place of the network of another molecule; the weights stay as they are.

        Parameters
        ----------
        atomic_numbers : sequence of int

        Raises
        ------
        PotentialError
            If this is a network of one molecule, or does not know an element.
        """
        if not self.is_general:
            raise PotentialError("a network of one molecule cannot take another; make it with elements=...")
        numbers = list(check_elements("atomic_numbers", atomic_numbers))
        device = self.kinds.device
        self.kinds = self._kinds_of(numbers).to(device)
        self.apart = own_distance(len(numbers)).to(device)
        self.atomic_numbers = numbers

    def known_conditions(self) -> list[Condition]:
        """Return charge, multiplicity and electronic state of each surface of the model."""
        return [(int(row[0]), int(row[1]), int(row[2])) for row in self.conditions.tolist()]

    def atom_features(
        self,
        delta: Tensor,
        distances: Tensor,
        condition: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        """Return scalar, (members, batch, n, f), and vector, (members, batch, n, 3, f), features of the atoms.

        The last two are the radial basis of all pairs, (members or 1, batch, n, n p), and that of `TensorFeatures`.

        Parameters
        ----------
        delta, distances : (members or 1, batch, n, n, 3) and (members or 1, batch, n, n) tensors, bohr
        condition : (batch,) int64 tensor
            Rows of the table of conditions.
        """
        r = torch.clamp((distances * self.angstrom).to(self.centers.dtype), max=self.cutoff)
        x = r / self.cutoff
        # Zero with its first and second derivative at the cutoff.
        envelope = (1.0 - x * x) ** 3
        z = r.unsqueeze(-1) / self.width - self.centers / self.width
        radial = torch.cat([torch.exp(-0.5 * (z * z)), torch.ones_like(x).unsqueeze(-1)], dim=-1)
        radial = radial * envelope.unsqueeze(-1)
        unit = (delta / distances.unsqueeze(-1)).to(radial.dtype)
        # Rows: atom, or atom and direction. Columns: neighbour and radial function.
        directed = (unit.transpose(-1, -2).unsqueeze(-1) * radial.unsqueeze(-3)).flatten(-2).flatten(2, 3)
        pairs = radial
        if self.tensor_features > 0:
            pairs = self.tensors.basis(unit, radial)
        radial = radial.flatten(-2)
        embedding = self.embedding.unsqueeze(1) + self.condition_embedding.index_select(1, condition)
        s = embedding.index_select(2, self.kinds)
        v = s.unsqueeze(-2)
        first = True
        for to_scalar, to_vector, carry, message, mixer, update in zip(  # noqa: B905
            self.scalar_filters, self.vector_filters, self.carrying_filters, self.messages, self.mixers, self.updates
        ):
            sent = message(s).unflatten(-1, [3, self.features])
            dv = to_vector(directed, sent[..., 1:2, :]).reshape(s.shape[0], s.shape[1], s.shape[2], 3, self.features)
            s = s + to_scalar(radial, sent[..., 0:1, :]).squeeze(-2)
            v = dv if first else v + dv + carry(radial, sent[..., 2:3, :] * v)
            mixed = mixer(v).unflatten(-1, [2, self.features])
            left, right = mixed[..., 0, :], mixed[..., 1, :]
            products = (mixed * right.unsqueeze(-2)).sum(-3)
            length = torch.sqrt(products[..., 1, :] + 1e-6)
            a_ss, a_sv, a_vv = update(torch.cat([s, length], dim=-1)).split(self.features, dim=-1)
            s = s + a_ss + a_sv * products[..., 0, :]
            v = v + a_vv.unsqueeze(-2) * left
            if first and self.tensor_features > 0:
                t = self.tensors(pairs, s)
                right, left = self.tensor_directions(v).split(self.tensor_features, dim=-1)
                turned = (t * right.unsqueeze(-3)).sum(-2)
                size = torch.sqrt((t * t).sum(-2).sum(-2) + 1e-6)
                s = s + self.tensor_update(torch.cat([size, (turned * left).sum(-2), s], dim=-1))
                v = v + self.tensor_mixer(turned)
            first = False
        return s, v, radial, pairs

    def properties(self, positions: Tensor, condition: Tensor) -> Dict[str, Tensor]:  # noqa: UP006
        """Return the predictions of the network for the atoms.

        Parameters
        ----------
        positions : (members or 1, batch, n, 3) tensor, bohr
            One geometry for all members, or one for each, so that each has its own derivative.
        condition : (batch,) int64 tensor

        Returns
        -------
        dict
            ``energies``, hartree, ``charges``, e, ``polarisabilities`` (isotropic), bohr^3: (members, batch, n);
            ``dipoles``, e bohr: (..., n, 3); ``axes``, bohr^1.5: (..., n, 3, 2), whose outer products are the
            anisotropic part of the polarisability; ``flow``: (..., n, 2); ``internal_field``, hartree/(e bohr):
            (..., n, 3), of distant atoms of the region; ``delta`` and ``distances`` of all pairs, bohr; with near
            charges the coefficients of their term, ``near_scalars``, ``near_vectors`` and ``near_tensors``, and of its
            shared part.
        """
        delta, distances = pair_geometry(positions, self.apart)
        s, v, radial, pairs = self.atom_features(delta, distances, condition)
        directions = self.vector_head(v)
        out = self.head(s).to(torch.float64)
        vectors = directions[..., :3].to(torch.float64)
        charges = self.charge_scale * out[..., 1]
        weights = torch.nn.functional.softplus(out[..., 2]) + 1e-3
        total = self.conditions.index_select(0, condition)[:, 0].to(torch.float64)
        if self.is_difference:
            total = torch.zeros_like(total)
        missing = total.unsqueeze(-1) - charges.sum(-1, keepdim=True)
        charges = charges + missing * weights / weights.sum(-1, keepdim=True)
        dipoles = self.dipole_scale * vectors[..., 0]
        found = {
            "energies": self.energy_scale * out[..., 0],
            "charges": charges,
            "dipoles": dipoles,
            "polarisabilities": self.polarisability_scale * self._of_one_sign(out[..., 3]),
            "axes": self.axis_scale * vectors[..., 1:],
            "flow": self._of_one_sign(out[..., 4:]),
            "internal_field": torch.zeros_like(dipoles),
            "delta": delta,
            "distances": distances,
        }
        if self.long_range:
            found["internal_field"] = field_at_atoms(delta, distances, charges, dipoles, self.polarisation_damping)
        if self.near_cutoff > 0.0:
            found["near_scalars"] = self.near_head(s)
            found["near_vectors"] = directions[..., 3:]
            if self.tensor_features > 0:
                tensors = self.near_tensors(pairs, s).flatten(-3, -2)
                found["near_tensors"] = self.near_tensor_head(tensors * self.near_tensor_gate(s).unsqueeze(-2))
        if self.near_features > 0:
            found["radial"] = radial
            found["near_gate"] = self.near_gate(s)
            found["near_directions"] = self.near_directions(v)
            found["near_state"] = self.near_state(s)
            found["near_energies"] = self.near_energies(s)
        return found

    def _of_one_sign(self, values: Tensor) -> Tensor:
        """Return positive values for the energy of a level; those of a difference have either sign."""
        return values if self.is_difference else torch.nn.functional.softplus(values)

    def fixed_energy(self, positions: Tensor) -> Tensor:
        """Return the part that is not learned, (...) hartree: repulsion between atoms, and dispersion if set.

        Parameters
        ----------
        positions : (..., n, 3) tensor, bohr
        """
        if self.is_difference or self.response_only:
            return 0.0 * positions.sum(-1).sum(-1)
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
        if self.response_only:
            return torch.zeros_like(properties["energies"][..., 0]) + 0.0 * positions.sum(-1).sum(-1)
        delta, distances = properties["delta"], properties["distances"]
        energy = properties["energies"].sum(-1) + self.bonded.energy(distances)
        if not self.is_difference:
            energy = energy + self.repulsion.energy(distances)
        if self.dispersion is not None:
            energy = energy + self.dispersion(positions)
        energy = energy + self.constants.index_select(0, condition)
        if self.long_range:
            field = properties["internal_field"]
            energy = energy + pair_energy(
                delta, distances, properties["charges"], properties["dipoles"], self.charge_damping
            )
            energy = energy - 0.5 * (properties["polarisabilities"] * (field * field).sum(-1)).sum(-1)
        return energy

    def field_energy(
        self,
        properties: Dict[str, Tensor],  # noqa: UP006
        potential: Tensor,
        field: Tensor,
    ) -> Tensor:
        """Return the energies in the potential and field of the surroundings, (members, batch) hartree.

        Parameters
        ----------
        properties : dict
            From `properties`.
        potential : (members or 1, batch, n) tensor, hartree/e
        field : (members or 1, batch, n, 3) tensor, hartree/(e bohr)
        """
        if not self.response:
            return torch.zeros_like(properties["energies"][..., 0])
        charges, dipoles, axes = properties["charges"], properties["dipoles"], properties["axes"]
        polarised = properties["polarisabilities"].unsqueeze(-1) * (0.5 * field + properties["internal_field"])
        along = (axes * field.unsqueeze(-1)).sum(-2)
        squares = along * along
        flow = properties["flow"]
        from_flow = flow
        if self.is_difference:
            # One axis and one kind of flow of either sign.
            squares = torch.cat([squares[..., :1], -squares[..., 1:]], dim=-1)
            from_flow = torch.cat([flow[..., :1], -flow[..., 1:]], dim=-1)
        energy = (charges * potential - ((dipoles + polarised) * field).sum(-1) - 0.5 * squares.sum(-1)).sum(-1)
        step = potential.unsqueeze(-1) - potential.unsqueeze(-2)
        r = properties["distances"] / self.flow_range
        kappa = torch.matmul(from_flow, flow.transpose(-1, -2)) * torch.exp(-r * r)
        return energy - (0.25 * self.flow_scale) * (kappa * (step * step)).sum(-1).sum(-1)

    def near_energy(self, properties: Dict[str, Tensor], moments: Tensor) -> Tensor:  # noqa: UP006
        """Return the energies of the directional term of the near charges, (members, batch) hartree.

        Parameters
        ----------
        properties : dict
            From `properties`.
        moments : (members or 1, batch, n, 13, p) tensor
            Moments of the charges near each atom, from `near`.
        """
        scalars, vectors = properties["near_scalars"], properties["near_vectors"]
        count = self.near_functions
        a, b, c = vectors.split(count, dim=-1)
        outer = b.unsqueeze(-2) * c.unsqueeze(-3)
        # The second moments are used without their trace, which is the zeroth moment.
        plain = scalars[..., :count] - (b * c).sum(-2) / 3.0
        second = outer.flatten(-3, -2)
        if self.tensor_features > 0:
            second = second + properties["near_tensors"]
        linear = torch.cat([plain.unsqueeze(-2), a, second], dim=-2)
        energy = (linear * moments).sum(-1).sum(-1)
        mixed = self.near_mixer(moments.expand(linear.shape))
        norms = torch.matmul(self.near_norms, mixed * mixed).flatten(-2)
        softness = self._of_one_sign(scalars[..., count:])
        energy = energy - 0.5 * (softness * norms).sum(-1)
        if self.near_features > 0:
            energy = energy + self._shared_response(properties, moments[..., :4, :])
        return self.near_scale * energy.to(torch.float64).sum(-1)

    def _shared_response(self, properties: Dict[str, Tensor], moments: Tensor) -> Tensor:  # noqa: UP006
        """Return an energy of each atom, zero without near charges, from its moments and those of its neighbours.

        Parameters
        ----------
        properties : dict
        moments : (members or 1, batch, n, 4, p) tensor
            Moments of 1, u_x, u_y, u_z.
        """
        gate = properties["near_gate"]
        own = self.near_sender(moments.expand(gate.shape[0], -1, -1, -1, -1))
        seen = own + self.near_filter(properties["radial"], own * gate.unsqueeze(-2))
        scalars, vectors = seen[..., 0, :], seen[..., 1:, :]
        along = (vectors * properties["near_directions"]).sum(-2)
        invariants = self.near_hidden(torch.cat([scalars, along, (vectors * vectors).sum(-2)], dim=-1))
        silent = properties["near_state"]
        response = torch.nn.functional.silu(silent + invariants) - torch.nn.functional.silu(silent)
        return (response * properties["near_energies"]).sum(-1)

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        """Return the energy of one geometry, the mean of the members, as the contract of `qmmlmm.MLPotential` asks."""
        n = inputs["positions"].shape[0]
        positions = inputs["positions"].reshape(1, 1, n, 3)
        state = inputs["state"] if "state" in inputs else torch.zeros_like(inputs["charge"])
        condition = find_condition(self.conditions, inputs["charge"], inputs["multiplicity"], state).reshape(1)
        properties = self.properties(positions, condition)
        energies = self.intrinsic_energy(positions, properties, condition)
        if "potential" in inputs:
            potential, field = inputs["potential"].reshape(1, 1, n), inputs["field"].reshape(1, 1, n, 3)
            energies = energies + self.field_energy(properties, potential, field)
            if self.near_cutoff > 0.0:
                kept = self.near.select(inputs["positions"], inputs["near_positions"])
                near_positions = inputs["near_positions"].index_select(0, kept).reshape(1, 1, kept.shape[0], 3)
                moments = self.near(positions, near_positions, inputs["near_charges"].index_select(0, kept))
                energies = energies + self.near_energy(properties, moments)
        return {"energy": energies.mean(), "member_energies": energies[:, 0]}
