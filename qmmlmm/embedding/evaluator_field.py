"""The surroundings of a region as an `Evaluator` gets them, and the derivatives of its result for all sources."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.potential import Capabilities, Evaluation, ExternalField
from qmmlmm.embedding import mesh_kernel
from qmmlmm.embedding.kernels import smeared_radial
from qmmlmm.embedding.labels import NearSources
from qmmlmm.embedding.near_mesh import NARROW_REACH, WORTHWHILE, NearMesh, NearPotential
from qmmlmm.embedding.region_geometry import tensors_of
from qmmlmm.embedding.surroundings_field import PreparedField, SitePotential, SurroundingsField
from qmmlmm.errors import EvaluationError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.units import ANGSTROM_IN_BOHR, FloatArray

CLOSEST = 0.3 * ANGSTROM_IN_BOHR
"""Distance in bohr below which a charge lies inside an atom of the region."""

POINTS_AT_ONCE = 2000
"""Number of points of a density in one block; bounds the memory."""


class EvaluatorField:
    """The field of one term's surroundings, for evaluators.

    Parameters
    ----------
    layout : TermLayout
        Layout with surroundings.
    capabilities : Capabilities
        Capabilities of the potential, with its order of the mesh and its splitting.
    """

    def __init__(self, layout: TermLayout, capabilities: Capabilities) -> None:
        self.layout = layout
        order = capabilities.mesh_order
        compiled = layout.periodic and order in mesh_kernel.ORDERS and not mesh_kernel.unavailable_because()
        self.field = SurroundingsField(layout, order=order, compiled=compiled)
        self._near_mesh: NearMesh | None = None
        wanted = capabilities.splitting
        if wanted is not None and layout.periodic and wanted >= WORTHWHILE * self.field.splitting:
            self._near_mesh = NearMesh(self.field.splitting, wanted, self.field.cutoff)

    def at(self, geometry: Geometry) -> FieldAtGeometry:
        """Return the field at a geometry of all particles, bohr.

        Raises
        ------
        EvaluationError
            If a charge of the surroundings lies inside an atom of the region.
        """
        field = self.field
        prepared = field.prepare(*tensors_of(geometry))
        self._check_distances(prepared)
        everything = torch.arange(len(prepared.near_positions))
        mesh = self._near_mesh
        if mesh is None:
            return FieldAtGeometry(self.layout, field, prepared, everything, everything[:0], None, field.splitting)
        distances = torch.cdist(prepared.sites, prepared.near_positions).min(dim=0).values
        broadest = max(1.0 / mesh.narrow, float(prepared.near_widths.max()) if field.smeared else 0.0)
        compact = torch.nonzero(distances < NARROW_REACH * broadest)[:, 0]
        on_mesh = torch.nonzero(distances < field.cutoff)[:, 0]
        sources = mesh_sources(field, prepared, on_mesh)
        filled = mesh.fill(prepared.sites, *sources)
        return FieldAtGeometry(self.layout, field, prepared, compact, on_mesh, filled, mesh.narrow)

    def _check_distances(self, prepared: PreparedField) -> None:
        charged = torch.nonzero(prepared.near_charges)[:, 0]
        if not len(charged):
            return
        distances = torch.cdist(prepared.sites, prepared.near_positions[charged])
        pairs = torch.nonzero(distances < CLOSEST)
        if not len(pairs):
            return
        layout = self.layout
        found = [
            f"{layout.source_name(int(prepared.near_index[charged[k]]))} is "
            f"{float(distances[i, k]) / ANGSTROM_IN_BOHR:.2f} angstrom from {layout.site_name(int(i))}"
            for i, k in pairs
        ]
        raise EvaluationError(
            f"term {layout.specification.name!r}: charges of the surroundings lie inside atoms of the region: "
            f"{listed(found)}. Closer than 0.3 angstrom the interaction has no meaning; minimise with the force field "
            "first, or, for a cut bond, choose another link ratio or boundary_charges"
        )


def mesh_sources(field: SurroundingsField, prepared: PreparedField, on_mesh: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions and charges of the sources on the finer mesh: near ones and the region's own."""
    own = field.own_charges
    return (
        torch.cat([prepared.near_positions[on_mesh], prepared.sites[: len(own)]]),
        torch.cat([prepared.near_charges[on_mesh], own]),
    )


class FieldAtGeometry:
    """The field of a region's surroundings at one geometry; made by `EvaluatorField.at`.

    Parameters
    ----------
    layout : TermLayout
    field : SurroundingsField
    prepared : PreparedField
    compact, on_mesh : (k,) int64 tensors
        Indices of near sources: compact charges of the external field, and charges on the finer mesh.
    filled : NearPotential or None
        Potential on the finer mesh, if there is one.
    splitting : float, 1/bohr
        Splitting parameter of the compact charges.
    """

    def __init__(
        self,
        layout: TermLayout,
        field: SurroundingsField,
        prepared: PreparedField,
        compact: Tensor,
        on_mesh: Tensor,
        filled: NearPotential | None,
        splitting: float,
    ) -> None:
        self.layout = layout
        self.prepared = prepared
        self._field = field
        self._compact, self._on_mesh = compact, on_mesh
        self._filled = filled
        self._splitting = splitting

    @property
    def sites(self) -> FloatArray:
        """The region's atoms and link atoms, (n_sites, 3) bohr."""
        return np.asarray(self.prepared.sites.numpy())

    def site_potential(self) -> SitePotential:
        """Return the potential at the sites with its derivatives."""
        return self._field.potential(self.prepared)

    def external_field(self) -> ExternalField:
        """Return the field for an evaluator."""
        prepared, compact = self.prepared, self._compact
        near = prepared.near_positions[compact].numpy()
        charges = prepared.near_charges[compact].numpy()
        widths = prepared.near_widths[compact].numpy() if self._field.smeared else None
        if not self.layout.periodic:
            return ExternalField(near, charges, np.zeros_like(charges), widths=widths)
        own = self._field.own_charges.numpy()
        return ExternalField(
            positions=np.concatenate([near, self.sites[: len(own)]]),
            point_charges=np.concatenate([charges, np.zeros_like(own)]),
            gaussian_charges=np.concatenate([-charges, -own]),
            splitting=self._splitting,
            smooth_potential=self.smooth_potential,
            widths=None if widths is None else np.concatenate([widths, np.zeros_like(own)]),
        )

    def smooth_potential(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the smooth part of the potential, (g,) hartree/e, and its gradient, (g, 3), at points, (g, 3) bohr."""
        at = torch.from_numpy(np.ascontiguousarray(points))
        value, gradient = self._field.smooth_potential(self.prepared, at)
        if self._filled is not None:
            more = self._filled.potential(at)
            value, gradient = value + more[0], gradient + more[1]
        return value.numpy(), gradient.numpy()

    def collect(self, evaluation: Evaluation) -> tuple[float, Tensor, Tensor]:
        """Return the energy of a term and its derivatives with respect to the sites and the sources.

        Parameters
        ----------
        evaluation : Evaluation
            Result in this field.

        Returns
        -------
        energy : float, hartree
            Energy in which the reference charges of embedded regions count once.
        site_gradient : (n_sites, 3) tensor, hartree/bohr
        source_gradient : (n_sources, 3) tensor, hartree/bohr
        """
        field, prepared = self._field, self.prepared
        once, once_sites, source_gradient = field.reference_energy(prepared)
        site_gradient = _tensor(evaluation.gradient) + once_sites
        near, own = self._near_gradient(evaluation)
        source_gradient.index_add_(0, prepared.near_index, near)
        site_gradient[: own.shape[0]] += own
        if self.layout.periodic:
            points, charges = _tensor(evaluation.smooth_points), _tensor(evaluation.smooth_charges)
            source_gradient = source_gradient + field.smooth_adjoint(prepared, points, charges, None)
        return evaluation.energy + float(once), site_gradient, source_gradient

    def source_energies(self, evaluation: Evaluation) -> FloatArray:
        """Return the energy of the region with each source of its field, (n_sources,) hartree.

        The energy of an atom of the region is that with its own images.

        Parameters
        ----------
        evaluation : Evaluation
            Result in this field, with `charge_energies`.
        """
        field, prepared = self._field, self.prepared
        assert evaluation.charge_energies is not None
        compact = _tensor(evaluation.charge_energies())
        energies = torch.zeros_like(field.charges)
        if not self.layout.periodic:
            energies.index_add_(0, prepared.near_index, compact)
            return np.asarray(energies.numpy())
        own = field.geometry.atoms
        n_compact = self._compact.shape[0]
        energies.index_add_(0, prepared.near_index[self._compact], compact[:n_compact])
        # The last Gaussian charges subtract the nearest images of the region's atoms, itself, from the mesh.
        energies.index_add_(0, own, compact[n_compact:])
        points, charges = _tensor(evaluation.smooth_points), _tensor(evaluation.smooth_charges)
        energies = energies + field.smooth_source_energies(prepared, points, charges, None)
        if self._filled is not None:
            positions, mesh_charges = mesh_sources(field, prepared, self._on_mesh)
            pairs = mesh_charges * self._filled.potential_at(positions, points, charges)[0]
            energies.index_add_(0, torch.cat([prepared.near_index[self._on_mesh], own]), pairs)
        return np.asarray(energies.numpy())

    def near_sources(self, evaluation: Evaluation, reach: float) -> NearSources:
        """Return the charges of the surroundings within a distance of an atom, with the derivatives through 1/r.

        Parameters
        ----------
        evaluation : Evaluation
            Result in this field.
        reach : float, bohr
        """
        field, prepared = self._field, self.prepared
        positions, charges = prepared.near_positions, prepared.near_charges
        near = torch.nonzero(torch.cdist(prepared.sites, positions).min(dim=0).values < reach)[:, 0]
        gradient, _ = self._near_gradient(evaluation)
        gradient, positions, charges = gradient[near], positions[near], charges[near]
        if self.layout.periodic:
            # The integrals are over erfc(a r)/r; the difference to 1/r is smooth and computed from charges at points.
            points, density = _tensor(evaluation.smooth_points), _tensor(evaluation.smooth_charges)
            rest = torch.zeros_like(gradient)
            for some in torch.arange(len(points)).split(POINTS_AT_ONCE):
                delta = positions[:, None, :] - points[some][None, :, :]
                radial = smeared_radial(delta.norm(dim=-1), field.splitting)
                rest += torch.einsum("kg,kgc->kc", radial * density[some], delta)
            gradient = gradient + charges[:, None] * rest
        widths = prepared.near_widths[near].numpy() if field.smeared else None
        return NearSources(positions.numpy(), charges.numpy(), gradient.numpy(), widths)

    def _near_gradient(self, evaluation: Evaluation) -> tuple[Tensor, Tensor]:
        """Return the derivatives with respect to the near sources and to the region's Gaussian charges."""
        field, prepared = self._field, self.prepared
        charge_gradient = _tensor(evaluation.charge_gradient)
        if not self.layout.periodic:
            return charge_gradient, charge_gradient[:0]
        n_compact, n_own = self._compact.shape[0], field.own_charges.shape[0]
        near = torch.zeros_like(prepared.near_positions)
        near.index_add_(0, self._compact, charge_gradient[:n_compact])
        # The last Gaussian charges are at the region's own atoms.
        own = charge_gradient[n_compact:]
        if self._filled is not None:
            points, charges = _tensor(evaluation.smooth_points), _tensor(evaluation.smooth_charges)
            positions, mesh_charges = mesh_sources(field, prepared, self._on_mesh)
            pull = mesh_charges[:, None] * self._filled.adjoint(points, charges, positions)
            near.index_add_(0, self._on_mesh, pull[:-n_own])
            own = own + pull[-n_own:]
        return near, own


def _tensor(array: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
