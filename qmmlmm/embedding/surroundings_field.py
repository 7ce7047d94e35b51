"""The potential of a region's surroundings at its sites, and the forces of the region on them.

All quantities are in atomic units, and all code is TorchScript.

Notes
-----
With K the Ewald kernel of the box (1/r without one), q the charges of all sources, among them the region's own
reference charges, the region feels

    phi(r) = sum_j q_j K(r - r_j) - sum_{i in region} q_i / |r - r_i|,

which includes the surroundings and all images of the region, but not the region itself. Its term in the energy is

    E = f(R, phi, grad phi) - 1/2 sum_{i in region} q_i phi'(r_i),

where phi' is the same potential of only the reference charges of all embedded regions. By the second part the
interaction of the region with its own images, and with other embedded regions, which also feel this one, counts once.
This is exact for a region of fixed charges; otherwise the error is of second order in the difference between the
region's charge density and its reference charges. The second part does not depend on the region's density, so that no
response term is needed.

For charges that are Gaussian distributions of width w (`qmmlmm.coupling.smeared_charges`), K has erf(r/w)/r instead of
the 1/r of the nearest images. The difference, erfc(r/w)/r, is short-ranged and does not change the mesh.

Source of the kernel: Ewald's sum as in Essmann et al., J. Chem. Phys. 103, 8577 (1995), with OpenMM's
neutralising background.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.smeared_charges import REACH
from qmmlmm.embedding.kernels import screened_kernel
from qmmlmm.embedding.mesh import SPLINE_ORDER, EwaldMesh
from qmmlmm.embedding.own_kernel import (
    OwnKernel,
    own_curvature,
    own_from_charges,
    own_from_dipoles,
    own_kernel,
    own_potential,
)
from qmmlmm.embedding.region_geometry import RegionGeometry, required_box
from qmmlmm.embedding.stencil import Stencil

SAME_POSITION = 1e-4
"""Squared distance, bohr^2, below which a source is the region's own atom and not an image of it."""


class PreparedField(NamedTuple):
    """The sources of a region's field at one geometry.

    Parameters
    ----------
    sites : (n_sites, 3) tensor, bohr
        Atoms and link atoms of the region.
    sources : (n_sources, 3) tensor, bohr
        All particles, then the derived charges.
    box : (3, 3) tensor or None, bohr
    near_positions : (k, 3) tensor, bohr
        Images of sources that act through their kernel and not only through the mesh.
    near_index : (k,) int64 tensor
        Source of each image.
    near_charges : (k,) tensor, e
    near_widths : (k,) tensor, bohr
        Widths of Gaussian charges, zero for points.
    order, start, places : tensors
        Cells of the sources, from `EwaldMesh.locate`; empty without a box.
    mesh_potential : (nx, ny, nz) tensor, hartree/e
        Long-range potential on the mesh; empty without a box.
    stencil : Stencil
        Mesh points around the sites; empty without a box.
    own : OwnKernel
        What the mesh has of the region itself; empty without a box.
    """

    sites: Tensor
    sources: Tensor
    box: Tensor | None
    near_positions: Tensor
    near_index: Tensor
    near_charges: Tensor
    near_widths: Tensor
    order: Tensor
    start: Tensor
    places: Tensor
    mesh_potential: Tensor
    stencil: Stencil
    own: OwnKernel


class SitePotential(NamedTuple):
    """The potential at a region's sites with its derivatives, and intermediates for its adjoint.

    Parameters
    ----------
    value : (n_sites,) tensor, hartree/e
    gradient : (n_sites, 3) tensor, hartree/(e bohr)
    curvature : (n_sites, 3, 3) tensor, hartree/(e bohr^2)
    near_delta : (3, n_sites, k) tensor, bohr
        Vectors from the near sources to the sites.
    near_radial, near_along : (n_sites, k) tensors
        First derivative of the kernel divided by the distance, and the additional second derivative along the distance.
    """

    value: Tensor
    gradient: Tensor
    curvature: Tensor
    near_delta: Tensor
    near_radial: Tensor
    near_along: Tensor


class SurroundingsField(torch.nn.Module):
    """Potential, gradient and curvature at a region's sites, and their adjoint.

    `prepare` returns the field of a geometry; the other methods take it.

    Parameters
    ----------
    layout : TermLayout
        Layout with `surroundings`.
    mesh_dtype : torch.dtype
        Type of the mesh for the long-range part; everything else is float64.
    order : int
        Order of the mesh's B-splines.
    compiled : bool
        Whether the mesh is that of `qmmlmm.embedding.mesh_kernel`.
    """

    charges: Tensor
    widths: Tensor
    alpha: Tensor
    reference: Tensor
    own: Tensor
    own_charges: Tensor
    reference_sources: Tensor
    active: Tensor

    def __init__(
        self,
        layout: TermLayout,
        mesh_dtype: torch.dtype = torch.float64,
        order: int = SPLINE_ORDER,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        assert layout.surroundings is not None
        surroundings = layout.surroundings
        self.periodic = layout.periodic
        self.correction = layout.correction
        self.n_atoms = len(layout.atoms)
        self.same_position = SAME_POSITION
        self.smearing_reach = REACH
        self.smeared = surroundings.source_widths is not None
        widths = (
            np.zeros(len(surroundings.source_charges))
            if surroundings.source_widths is None
            else (surroundings.source_widths)
        )
        self.register_buffer("widths", torch.tensor(widths))
        self.splitting = float(surroundings.splitting)
        self.register_buffer("alpha", torch.tensor(self.splitting, dtype=torch.float64))
        self.cutoff = float(surroundings.short_range_cutoff)
        n_derived = len(surroundings.derived_fractions)
        charges = torch.tensor(surroundings.source_charges)
        reference = torch.cat([torch.tensor(surroundings.reference_charges), charges.new_zeros(n_derived)])
        own = torch.full((len(charges),), -1, dtype=torch.int64)
        own[torch.tensor(layout.atoms)] = torch.arange(self.n_atoms)
        own_charges = charges[torch.tensor(layout.atoms)]
        self.register_buffer("charges", charges)
        self.register_buffer("reference", reference)
        self.register_buffer("own", own)
        self.register_buffer("own_charges", own_charges)
        reference_sources = torch.nonzero(reference)[:, 0]
        self.register_buffer("reference_sources", reference_sources)
        # Whether no other region is in the field, so that the reference charges are the region's own.
        elsewhere = reference.clone()
        elsewhere[torch.tensor(layout.atoms)] -= own_charges
        self.alone = not bool((elsewhere != 0).any())
        self.register_buffer("active", torch.nonzero((charges != 0) | (reference != 0))[:, 0])
        self.geometry = RegionGeometry(layout)
        self.mesh = EwaldMesh(
            self.splitting if self.periodic else 1.0,
            surroundings.grid if self.periodic else (8, 8, 8),
            order,
            mesh_dtype,
            compiled,
        )

    @torch.jit.export
    def prepare(self, positions: Tensor, box: Tensor | None) -> PreparedField:
        """Find the near sources of a geometry and fill the mesh.

        Parameters
        ----------
        positions : (n_particles, 3) tensor, bohr
        box : (3, 3) tensor or None, bohr
            None without periodicity.
        """
        sites = self.geometry.sites(positions, box)
        sources = self.geometry.sources(positions, box)
        near_positions, near_index = self._find_near(sites, sources, box)
        order = torch.zeros(0, dtype=torch.int64, device=sites.device)
        start, places, mesh_potential = order, sites[:0, :0], sites[:0, :0]
        stencil = Stencil(sites[:0], order, order)
        own = OwnKernel(sites[:0], sites[:0], sites[:0], sites[:0])
        if self.periodic:
            vectors = required_box(box)
            order, start, places = self.mesh.locate(sources, vectors)
            charged = self.mesh.spread_located(order, start, places, self.charges, None, vectors)
            mesh_potential = self.mesh.convolve(charged, vectors)
            stencil = self.mesh.stencil(sites, vectors)
            own = own_kernel(sites, self.n_atoms, self.alpha)
        return PreparedField(
            sites,
            sources,
            box,
            near_positions,
            near_index,
            self.charges[near_index],
            self.widths[near_index],
            order,
            start,
            places,
            mesh_potential,
            stencil,
            own,
        )

    def _find_near(self, sites: Tensor, sources: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the positions of the near images and their sources."""
        index = self.active
        if not self.periodic:
            positions = sources[index]
        else:
            vectors = required_box(box)
            center = sites.mean(dim=0)
            radius = torch.sqrt(((sites - center) ** 2).sum(-1).max())
            reach = self.cutoff + radius
            inverse = self.mesh.inverse(vectors)
            # Coordinates come first, so that all arithmetic runs along the sources.
            fractional = torch.matmul(inverse.t(), sources.t().index_select(1, index) - center[:, None])
            displacements = torch.matmul(vectors.t(), fractional - torch.round(fractional))
            # Perpendicular width of the box along each reciprocal vector.
            widths = 1.0 / torch.sqrt((inverse * inverse).sum(dim=0))
            shells = torch.floor(reach / widths + 0.5)
            limit = reach * reach
            found: list[Tensor] = []
            images: list[Tensor] = []
            na, nb, nc = int(shells[0]), int(shells[1]), int(shells[2])
            for a in range(-na, na + 1):
                for b in range(-nb, nb + 1):
                    for c in range(-nc, nc + 1):
                        shifted = displacements
                        if a != 0 or b != 0 or c != 0:
                            shifted = displacements + (a * vectors[0] + b * vectors[1] + c * vectors[2])[:, None]
                        squared = shifted[0] * shifted[0] + shifted[1] * shifted[1] + shifted[2] * shifted[2]
                        keep = torch.nonzero(squared < limit)[:, 0]
                        found.append(index[keep])
                        images.append(center + shifted.index_select(1, keep).t())
            index = torch.cat(found)
            positions = torch.cat(images)
        local = self.own[index]
        itself = local >= 0
        if self.periodic:
            away = positions - sites[torch.clamp(local, min=0)]
            itself = itself & ((away * away).sum(-1) < self.same_position)
        keep = torch.nonzero(~itself)[:, 0]
        return positions[keep], index[keep]

    def _compact(self, r: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the short-range potential of near unit charges, (n, k), and its derivatives."""
        value, first, second = screened_kernel(r, self.alpha)
        if self.smeared:
            near = (widths > 0) & (r.min(dim=0).values < self.smearing_reach * widths)
            close = torch.nonzero(near)[:, 0]
            less, less_first, less_second = screened_kernel(r[:, close], 1.0 / widths[close])
            value = value.index_add(1, close, less, alpha=-1.0)
            first = first.index_add(1, close, less_first, alpha=-1.0)
            second = second.index_add(1, close, less_second, alpha=-1.0)
        return value, first, second

    @torch.jit.export
    def potential(self, prepared: PreparedField) -> SitePotential:
        """Return the potential at the sites with its first and second derivatives."""
        sites, q = prepared.sites, prepared.near_charges
        # Coordinates come first, so that all arithmetic runs along the near sources.
        delta = sites.t()[:, :, None] - prepared.near_positions.t().contiguous()[:, None, :]
        squared = delta[0] * delta[0] + delta[1] * delta[1] + delta[2] * delta[2]
        r = torch.sqrt(squared)
        value, first, second = self._compact(r, prepared.near_widths)
        radial = first / r
        along = (second - radial) / squared
        value_sum = torch.matmul(value, q)
        gradient = torch.matmul(delta * radial, q).t()
        weighted = delta * (along * q)
        by_x = (delta * weighted[0]).sum(-1)
        by_y = (delta * weighted[1]).sum(-1)
        zz = (delta[2] * weighted[2]).sum(-1)
        curvature = torch.stack([by_x[0], by_x[1], by_x[2], by_x[1], by_y[1], by_y[2], by_x[2], by_y[2], zz], dim=-1)
        curvature = curvature.view(-1, 3, 3)
        isotropic = torch.matmul(radial, q)
        curvature = curvature + isotropic[:, None, None] * torch.eye(3, dtype=r.dtype, device=r.device)
        if self.periodic:
            own_value, own_gradient = own_potential(prepared.own, self.own_charges)
            smooth, smooth_gradient, smooth_curvature = self.mesh.gather_few(
                prepared.mesh_potential, prepared.stencil, required_box(prepared.box)
            )
            value_sum = value_sum + (smooth - own_value)
            gradient = gradient + (smooth_gradient - own_gradient)
            curvature = curvature + (smooth_curvature - own_curvature(prepared.own, self.own_charges))
        return SitePotential(value_sum, gradient, curvature, delta, radial, along)

    @torch.jit.export
    def adjoint(self, prepared: PreparedField, potential: SitePotential, charges: Tensor, dipoles: Tensor) -> Tensor:
        """Return the derivatives of an energy with respect to the sources' positions.

        Parameters
        ----------
        prepared : PreparedField
        potential : SitePotential
            Potential of this field.
        charges : (n_sites,) tensor, e
            Derivative of an energy with respect to the potential at the sites.
        dipoles : (n_sites, 3) tensor, e bohr
            Its derivative with respect to the gradient of the potential at the sites.

        Returns
        -------
        (n_sources, 3) tensor, hartree/bohr
            The derivatives with respect to the sites are in `qmmlmm.embedding.chain_rule`.
        """
        delta, radial = potential.near_delta, potential.near_radial
        towards = dipoles.t()[:, :, None]
        projection = delta[0] * towards[0] + delta[1] * towards[1] + delta[2] * towards[2]
        along = charges[:, None] * radial + potential.near_along * projection
        pull = ((delta * along).sum(1) + torch.matmul(dipoles.t(), radial)).t()
        gradient = torch.zeros_like(prepared.sources)
        gradient.index_add_(0, prepared.near_index, -prepared.near_charges[:, None] * pull)
        if self.periodic:
            box = required_box(prepared.box)
            gradient += self._on_sources(prepared, self.mesh.spread_few(prepared.stencil, charges, dipoles, box))
            own = own_from_charges(prepared.own, charges) + own_from_dipoles(prepared.own, dipoles)
            gradient.index_add_(0, self.geometry.atoms, self.own_charges[:, None] * own)
        return gradient

    @torch.jit.export
    def smooth_potential(self, prepared: PreparedField, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mesh part of the potential, (g,) hartree/e, and its gradient, at points, (g, 3) bohr."""
        value, gradient = self.mesh.gather(prepared.mesh_potential, points, required_box(prepared.box))
        return value.to(torch.float64), gradient.to(torch.float64)

    @torch.jit.export
    def smooth_adjoint(
        self,
        prepared: PreparedField,
        points: Tensor,
        charges: Tensor,
        dipoles: Tensor | None,
    ) -> Tensor:
        """Return the mesh part of `adjoint` for charges at points, (n_sources, 3) hartree/bohr."""
        return self._on_sources(prepared, self.mesh.spread(points, charges, dipoles, required_box(prepared.box)))

    def _on_sources(self, prepared: PreparedField, spread: Tensor) -> Tensor:
        """Return the derivatives of the energy of charges on the mesh with respect to the sources, (n_sources, 3)."""
        box = required_box(prepared.box)
        mesh = self.mesh.convolve(spread, box)
        _, gradient = self.mesh.gather_located(mesh, prepared.order, prepared.start, prepared.places, box)
        return self.charges[:, None] * gradient

    @torch.jit.export
    def source_energies(self, prepared: PreparedField, charges: Tensor, dipoles: Tensor) -> Tensor:
        """Return the energy of each source in the potential of charges and dipoles at the sites.

        Parameters
        ----------
        prepared : PreparedField
        charges : (n_sites,) tensor, e
        dipoles : (n_sites, 3) tensor, e bohr

        Returns
        -------
        (n_sources,) tensor, hartree
            Their sum is that of charges * potential + dipoles . gradient of `potential`. For an atom of the region it
            is the energy of its images.
        """
        sites = prepared.sites
        delta = sites[:, None, :] - prepared.near_positions[None, :, :]
        r = torch.sqrt((delta * delta).sum(-1))
        value, first, _ = self._compact(r, prepared.near_widths)
        felt = (charges[:, None] * value + first / r * (delta * dipoles[:, None, :]).sum(-1)).sum(0)
        energies = torch.zeros_like(self.charges)
        energies.index_add_(0, prepared.near_index, prepared.near_charges * felt)
        if self.periodic:
            energies = energies + self.smooth_source_energies(prepared, sites, charges, dipoles)
            projection = (prepared.own.delta * dipoles[:, None, :]).sum(-1)
            own = (charges[:, None] * prepared.own.value + prepared.own.radial * projection).sum(0)
            energies.index_add_(0, self.geometry.atoms, -self.own_charges * own)
        return energies

    @torch.jit.export
    def smooth_source_energies(
        self,
        prepared: PreparedField,
        points: Tensor,
        charges: Tensor,
        dipoles: Tensor | None,
    ) -> Tensor:
        """Return the mesh part of `source_energies` for charges at points, (n_sources,) hartree."""
        box = required_box(prepared.box)
        mesh = self.mesh.convolve(self.mesh.spread(points, charges, dipoles, box), box)
        value, _ = self.mesh.gather(mesh, prepared.sources, box)
        return self.charges * value

    @torch.jit.export
    def reference_energy(self, prepared: PreparedField) -> tuple[Tensor, Tensor, Tensor]:
        """Return -1/2 sum_i q_i phi'(r_i), by which reference interactions count once, and its derivatives.

        They are zero for a correction: the level that it corrects has them.

        Returns
        -------
        energy : () tensor, hartree
        site_gradient : (n_sites, 3) tensor, hartree/bohr
        source_gradient : (n_sources, 3) tensor, hartree/bohr
        """
        sites = prepared.sites
        if self.correction:
            return sites.new_zeros(()), torch.zeros_like(sites), torch.zeros_like(prepared.sources)
        site_charges = torch.zeros(sites.shape[0], dtype=sites.dtype, device=sites.device)
        site_charges[: self.n_atoms] = -0.5 * self.own_charges
        positions, index, widths = self._near_reference(prepared)
        q = self.reference[index]
        delta = sites[:, None, :] - positions[None, :, :]
        r = torch.sqrt((delta * delta).sum(-1))
        value, first, _ = self._compact(r, widths)
        pair = site_charges[:, None] * q[None, :]
        energy = (pair * value).sum()
        pull = (pair * first / r)[:, :, None] * delta
        site_gradient = pull.sum(1)
        source_gradient = torch.zeros_like(prepared.sources)
        source_gradient.index_add_(0, index, -pull.sum(0))
        if self.periodic:
            box = required_box(prepared.box)
            own_value, own_gradient = own_potential(prepared.own, self.own_charges)
            charges = self.own_charges
            if self.alone:
                mesh_value, mesh_gradient = self.mesh.potential_among_few(prepared.stencil, charges, box)
            else:
                charges = self.reference[self.reference_sources]
                spread = self.mesh.spread(prepared.sources[self.reference_sources], charges, None, box)
                mesh_value, mesh_gradient, _ = self.mesh.gather_few(
                    self.mesh.convolve(spread, box), prepared.stencil, box
                )
            energy = energy + (site_charges * (mesh_value - own_value)).sum()
            site_gradient = site_gradient + site_charges[:, None] * (mesh_gradient - own_gradient)
            if self.alone:
                # The site charges are -1/2 times these charges, at the same positions.
                back = charges[:, None] * (-0.5 * mesh_gradient[: self.n_atoms])
                source_gradient.index_add_(0, self.geometry.atoms, back)
            else:
                places = prepared.sources[self.reference_sources]
                other = self.mesh.convolve(self.mesh.spread_few(prepared.stencil, site_charges, None, box), box)
                _, back_gradient = self.mesh.gather(other, places, box)
                source_gradient.index_add_(0, self.reference_sources, charges[:, None] * back_gradient)
            own_back = own_from_charges(prepared.own, site_charges)
            source_gradient.index_add_(0, self.geometry.atoms, self.own_charges[:, None] * own_back)
        return energy, site_gradient, source_gradient

    def _near_reference(self, prepared: PreparedField) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions, sources and widths of the near images with a reference charge."""
        keep = torch.nonzero(self.reference[prepared.near_index])[:, 0]
        return prepared.near_positions[keep], prepared.near_index[keep], prepared.near_widths[keep]
