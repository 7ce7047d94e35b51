"""The potential of a region's surroundings at its sites, and the forces that the region exerts back.

Everything in atomic units and TorchScript.

Notes
-----
With K the Ewald kernel of the box (1/r without one), q the charges of all sources, among them the region's own
reference charges, the region feels

    phi(r) = sum_j q_j K(r - r_j) - sum_{i in region} q_i / |r - r_i|,

the surroundings and all images of the region, but not the region itself. Its term in the energy is

    E = f(R, phi, grad phi) - 1/2 sum_{i in region} q_i phi'(r_i),

where phi' is the same with the reference charges of all embedded regions alone. The second part makes the
interaction of the region with its own images, and with other embedded regions (which feel this one in their
turn), count once. It is exact for a region of fixed charges, and of second order in the difference between
the region's charge density and its reference charges otherwise. No part of it depends on the region's
density, so that no response term is needed.

Where charges of the surroundings are Gaussian distributions of width w (`qmmlmm.coupling.smeared_charges`), K has
erf(r/w)/r in the place of the 1/r of the nearest images. That takes erfc(r/w)/r away, which is short-ranged: the mesh
knows nothing of it.

Source of the kernel: Ewald's sum as in Essmann et al., J. Chem. Phys. 103, 8577 (1995), with OpenMM's
neutralising background.
"""

# Annotations stay objects here (no `from __future__ import annotations`): TorchScript cannot read strings.

import math

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.smeared_charges import REACH
from qmmlmm.embedding.geometry import RegionGeometry
from qmmlmm.embedding.mesh import SPLINE_ORDER, EwaldMesh

SAME_PLACE = 1e-4
"""Square of the distance (bohr^2) below which a source is the region's own atom and not an image of it."""


def screened_kernel(r: Tensor, splitting: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return erfc(a r)/r and its first and second derivatives, for one a or one for each column of r."""
    inverse = 1.0 / r
    value = torch.erfc(splitting * r) * inverse
    gaussian = (2.0 * splitting / math.sqrt(math.pi)) * torch.exp(-((splitting * r) ** 2))
    first = -(value + gaussian) * inverse
    second = -2.0 * first * inverse + 2.0 * splitting * splitting * gaussian
    return value, first, second


def smeared_kernel(r: Tensor, splitting: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return erf(a r)/r, its first derivative divided by r, and its second derivative, finite at r = 0."""
    near = splitting * r < 0.1
    safe = torch.where(near, torch.ones_like(r), r)
    gaussian = (2.0 * splitting / math.sqrt(math.pi)) * torch.exp(-((splitting * safe) ** 2))
    value = torch.erf(splitting * safe) / safe
    first = (gaussian - value) / safe
    second = -2.0 * first / safe - 2.0 * splitting * splitting * gaussian
    # Taylor series of erf(x)/x; the next terms are below 1e-14 at x = 0.1.
    x2 = (splitting * r) ** 2
    c = 2.0 * splitting / math.sqrt(math.pi)
    value0 = c * (1.0 - x2 / 3.0 + x2**2 / 10.0 - x2**3 / 42.0 + x2**4 / 216.0 - x2**5 / 1320.0 + x2**6 / 9360.0)
    c2 = c * splitting * splitting
    slope0 = c2 * (
        -2.0 / 3.0
        + 4.0 * x2 / 10.0
        - 6.0 * x2**2 / 42.0
        + 8.0 * x2**3 / 216.0
        - 10.0 * x2**4 / 1320.0
        + 12.0 * x2**5 / 9360.0
    )
    second0 = c2 * (
        -2.0 / 3.0
        + 12.0 * x2 / 10.0
        - 30.0 * x2**2 / 42.0
        + 56.0 * x2**3 / 216.0
        - 90.0 * x2**4 / 1320.0
        + 132.0 * x2**5 / 9360.0
    )
    return (
        torch.where(near, value0, value),
        torch.where(near, slope0, first / safe),
        torch.where(near, second0, second),
    )


def smeared_slope(r: Tensor, splitting: float) -> Tensor:
    """Return the first derivative of erf(a r)/r divided by r alone, for many distances of which few are short."""
    near = splitting * r < 0.1
    safe = r.masked_fill(near, 1.0)
    gaussian = (2.0 * splitting / math.sqrt(math.pi)) * torch.exp(-((splitting * safe) ** 2))
    slope = (gaussian - torch.erf(splitting * safe) / safe) / safe**2
    slope[near] = smeared_kernel(r[near], splitting)[1]
    return slope


class SurroundingsField(torch.nn.Module):
    """Potential, gradient and curvature at a region's sites, and their adjoint.

    Call `prepare` once per geometry; the other methods use what it found.

    Parameters
    ----------
    layout : TermLayout
        With `surroundings`.
    mesh_dtype : torch.dtype
        Of the mesh that carries the long-range part; everything else is float64.
    order : int
        Of the mesh's B-splines.
    """

    charges: Tensor
    widths: Tensor
    alpha: Tensor
    reference: Tensor
    own: Tensor
    own_charges: Tensor
    reference_sources: Tensor
    active: Tensor

    def __init__(self, layout: TermLayout, mesh_dtype: torch.dtype = torch.float64, order: int = SPLINE_ORDER) -> None:
        super().__init__()
        assert layout.surroundings is not None
        surroundings = layout.surroundings
        self.periodic = layout.periodic
        self.n_atoms = len(layout.atoms)
        self.same_place = SAME_PLACE
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
        # No other region is in the field: the reference charges are the region's own.
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
        )
        # Found by prepare().
        self.sources = torch.zeros(0, 3, dtype=torch.float64)
        self.sites = torch.zeros(0, 3, dtype=torch.float64)
        self.box = torch.eye(3, dtype=torch.float64)
        self.near_positions = torch.zeros(0, 3, dtype=torch.float64)
        self.near_index = torch.zeros(0, dtype=torch.int64)
        self.near_delta = torch.zeros(3, 0, 0, dtype=torch.float64)
        self.near_radial = torch.zeros(0, 0, dtype=torch.float64)
        self.near_along = torch.zeros(0, 0, dtype=torch.float64)
        self.order = torch.zeros(0, dtype=torch.int64)
        self.start = torch.zeros(0, dtype=torch.int64)
        self.fraction = torch.zeros(3, 0, dtype=mesh_dtype)
        self.mesh_potential = torch.zeros(1, 1, 1, dtype=mesh_dtype)

    @torch.jit.export
    def prepare(self, positions: Tensor, box: Tensor) -> Tensor:
        """Take a geometry, find the near sources, fill the mesh; return the sites, (n_sites, 3) bohr.

        Parameters
        ----------
        positions : (n_particles, 3) tensor, bohr
        box : (3, 3) tensor, bohr
        """
        self.box = box
        self.sites = self.geometry.sites(positions, box)
        self.sources = self.geometry.sources(positions, box)
        self._find_near()
        if self.periodic:
            self.order, self.start, self.fraction = self.mesh.locate(self.sources, box)
            charged = self.mesh.spread_located(self.order, self.start, self.fraction, self.charges, None, box)
            self.mesh_potential = self.mesh.convolve(charged, box)
        return self.sites

    def _find_near(self) -> None:
        index = self.active
        positions = self.sources[index]
        if self.periodic:
            center = self.sites.mean(dim=0)
            radius = torch.sqrt(((self.sites - center) ** 2).sum(-1).max())
            reach = self.cutoff + radius
            inverse = torch.linalg.inv(self.box)
            fractional = torch.matmul(positions - center, inverse)
            fractional = fractional - torch.round(fractional)
            displacements = torch.matmul(fractional, self.box)
            # Perpendicular width of the box along each reciprocal vector.
            widths = 1.0 / torch.sqrt((inverse * inverse).sum(dim=0))
            shells = torch.floor(reach / widths + 0.5)
            limit = reach * reach
            if bool((shells == 0).all()):
                keep = torch.nonzero((displacements * displacements).sum(-1) < limit)[:, 0]
                index = index[keep]
                positions = center + displacements[keep]
            else:
                found: list[Tensor] = []
                places: list[Tensor] = []
                na, nb, nc = int(shells[0]), int(shells[1]), int(shells[2])
                for a in range(-na, na + 1):
                    for b in range(-nb, nb + 1):
                        for c in range(-nc, nc + 1):
                            shifted = displacements + (a * self.box[0] + b * self.box[1] + c * self.box[2])
                            keep = torch.nonzero((shifted * shifted).sum(-1) < limit)[:, 0]
                            found.append(index[keep])
                            places.append(center + shifted[keep])
                index = torch.cat(found)
                positions = torch.cat(places)
        local = self.own[index]
        itself = local >= 0
        if self.periodic:
            away = positions - self.sites[torch.clamp(local, min=0)]
            itself = itself & ((away * away).sum(-1) < self.same_place)
        keep = torch.nonzero(~itself)[:, 0]
        self.near_index = index[keep]
        self.near_positions = positions[keep]

    @torch.jit.export
    def near_charges(self) -> Tensor:
        """Return the charges of the near sources, (k,) e."""
        return self.charges[self.near_index]

    @torch.jit.export
    def near_widths(self) -> Tensor:
        """Return the widths of the near sources, (k,) bohr, zero for points."""
        return self.widths[self.near_index]

    def _compact(self, r: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the potential of near unit charges beside the mesh, (n, k), and its derivatives."""
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
    def potential(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the potential at the sites with its first and second derivatives.

        Returns
        -------
        potential : (n_sites,) tensor, hartree/e
        gradient : (n_sites, 3) tensor, hartree/(e bohr)
        curvature : (n_sites, 3, 3) tensor, hartree/(e bohr^2)
        """
        # Coordinates come first, so that all arithmetic runs along the near sources.
        delta = self.sites.t()[:, :, None] - self.near_positions.t().contiguous()[:, None, :]
        squared = delta[0] * delta[0] + delta[1] * delta[1] + delta[2] * delta[2]
        r = torch.sqrt(squared)
        value, first, second = self._compact(r, self.near_widths())
        radial = first / r
        along = (second - radial) / squared
        self.near_delta, self.near_radial, self.near_along = delta, radial, along
        q = self.charges[self.near_index]
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
            own_value, own_gradient, own_curvature = self._own(self.own_charges)
            smooth, slope, bend = self.mesh.gather_few(self.mesh_potential, self.sites, self.box)
            value_sum = value_sum + (smooth - own_value)
            gradient = gradient + (slope - own_gradient)
            curvature = curvature + (bend - own_curvature)
        return value_sum, gradient, curvature

    def _own(self, charges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the smeared potential at the sites of charges at the region's atoms, and derivatives."""
        delta = self.sites[:, None, :] - self.sites[None, : self.n_atoms, :]
        r = torch.sqrt((delta * delta).sum(-1))
        value, slope, second = smeared_kernel(r, self.splitting)
        unit = delta / torch.clamp(r, min=1e-12)[:, :, None]
        along = (second - slope) * charges
        curvature = torch.matmul((along[:, :, None] * unit).transpose(1, 2), unit)
        identity = torch.eye(3, dtype=r.dtype, device=r.device)
        curvature = curvature + (slope * charges).sum(1)[:, None, None] * identity
        gradient = ((slope * charges)[:, :, None] * delta).sum(1)
        return torch.matmul(value, charges), gradient, curvature

    @torch.jit.export
    def adjoint(self, charges: Tensor, dipoles: Tensor) -> Tensor:
        """Return the forces' other half: derivatives with respect to the sources' positions.

        Parameters
        ----------
        charges : (n_sites,) tensor, e
            Derivative of an energy with respect to the potential at the sites.
        dipoles : (n_sites, 3) tensor, e bohr
            Its derivative with respect to the gradient of the potential at the sites.

        Returns
        -------
        (n_sources, 3) tensor, hartree/bohr
            Of the geometry that `potential` was called for last. The derivatives with respect to the sites
            themselves are charges * gradient + curvature . dipoles of `potential` and are not in it.
        """
        delta, radial = self.near_delta, self.near_radial
        towards = dipoles.t()[:, :, None]
        projection = delta[0] * towards[0] + delta[1] * towards[1] + delta[2] * towards[2]
        along = charges[:, None] * radial + self.near_along * projection
        pull = ((delta * along).sum(1) + torch.matmul(dipoles.t(), radial)).t()
        gradient = torch.zeros_like(self.sources)
        gradient.index_add_(0, self.near_index, -self.charges[self.near_index][:, None] * pull)
        if self.periodic:
            gradient += self.smooth_adjoint(self.sites, charges, dipoles)
            _, slope, curvature = self._own_pairs(charges, dipoles)
            own = self.own_charges[:, None] * (slope + curvature)
            gradient.index_add_(0, self.geometry.atoms, own)
        return gradient

    def _own_pairs(self, charges: Tensor, dipoles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pull of site charges and dipoles on unit smeared charges at the region's atoms."""
        delta = self.sites[:, None, :] - self.sites[None, : self.n_atoms, :]
        r = torch.sqrt((delta * delta).sum(-1))
        value, slope, second = smeared_kernel(r, self.splitting)
        from_charges = ((charges[:, None] * slope)[:, :, None] * delta).sum(0)
        projection = (delta * dipoles[:, None, :]).sum(-1)
        along = (second - slope) / torch.clamp(r * r, min=1e-24) * projection
        from_dipoles = (along[:, :, None] * delta).sum(0) + torch.matmul(slope.t(), dipoles)
        return value, from_charges, from_dipoles

    @torch.jit.export
    def smooth_potential(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mesh part of the potential, (g,) hartree/e, and its gradient, at any points, (g, 3) bohr."""
        value, gradient = self.mesh.gather(self.mesh_potential, points, self.box)
        return value.to(torch.float64), gradient.to(torch.float64)

    @torch.jit.export
    def smooth_adjoint(self, points: Tensor, charges: Tensor, dipoles: Tensor | None) -> Tensor:
        """Return the mesh part of `adjoint`, for charges at any points, (n_sources, 3) hartree/bohr."""
        mesh = self.mesh.convolve(self.mesh.spread(points, charges, dipoles, self.box), self.box)
        _, gradient = self.mesh.gather_located(mesh, self.order, self.start, self.fraction, self.box)
        return self.charges[:, None] * gradient

    def source_energies(self, charges: Tensor, dipoles: Tensor) -> Tensor:
        """Return the energy of each source in the potential of charges and dipoles at the sites.

        Parameters
        ----------
        charges : (n_sites,) tensor, e
        dipoles : (n_sites, 3) tensor, e bohr

        Returns
        -------
        (n_sources,) tensor, hartree
            The sum is that of charges * potential + dipoles . gradient of `potential`. An atom of the region has
            the energy of its images.
        """
        delta = self.sites[:, None, :] - self.near_positions[None, :, :]
        r = torch.sqrt((delta * delta).sum(-1))
        value, first, _ = self._compact(r, self.near_widths())
        felt = (charges[:, None] * value + first / r * (delta * dipoles[:, None, :]).sum(-1)).sum(0)
        energies = torch.zeros_like(self.charges)
        energies.index_add_(0, self.near_index, self.charges[self.near_index] * felt)
        if self.periodic:
            energies = energies + self.smooth_source_energies(self.sites, charges, dipoles)
            delta = self.sites[:, None, :] - self.sites[None, : self.n_atoms, :]
            value, slope, _ = smeared_kernel(torch.sqrt((delta * delta).sum(-1)), self.splitting)
            own = (charges[:, None] * value + slope * (delta * dipoles[:, None, :]).sum(-1)).sum(0)
            energies.index_add_(0, self.geometry.atoms, -self.own_charges * own)
        return energies

    def smooth_source_energies(self, points: Tensor, charges: Tensor, dipoles: Tensor | None) -> Tensor:
        """Return the mesh part of `source_energies`, for charges at any points, (n_sources,) hartree."""
        mesh = self.mesh.convolve(self.mesh.spread(points, charges, dipoles, self.box), self.box)
        value, _ = self.mesh.gather(mesh, self.sources, self.box)
        return self.charges * value

    @torch.jit.export
    def reference_energy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return -1/2 sum_i q_i phi'(r_i), which counts reference interactions once, and its derivatives.

        Returns
        -------
        energy : () tensor, hartree
        site_gradient : (n_sites, 3) tensor, hartree/bohr
        source_gradient : (n_sources, 3) tensor, hartree/bohr
        """
        site_charges = torch.zeros(self.sites.shape[0], dtype=self.sites.dtype, device=self.sites.device)
        site_charges[: self.n_atoms] = -0.5 * self.own_charges
        near_reference = self.reference[self.near_index]
        keep = torch.nonzero(near_reference)[:, 0]
        q = near_reference[keep]
        delta = self.sites[:, None, :] - self.near_positions[keep][None, :, :]
        r = torch.sqrt((delta * delta).sum(-1))
        value, first, _ = self._compact(r, self.near_widths()[keep])
        pair = site_charges[:, None] * q[None, :]
        energy = (pair * value).sum()
        pull = (pair * first / r)[:, :, None] * delta
        site_gradient = pull.sum(1)
        source_gradient = torch.zeros_like(self.sources)
        source_gradient.index_add_(0, self.near_index[keep], -pull.sum(0))
        if self.periodic:
            own_value, own_gradient, _ = self._own(self.own_charges)
            places, charges = self.sites[: self.n_atoms], self.own_charges
            if not self.alone:
                places = self.sources[self.reference_sources]
                charges = self.reference[self.reference_sources]
            mesh = self.mesh.convolve(self.mesh.spread(places, charges, None, self.box), self.box)
            mesh_value, mesh_gradient, _ = self.mesh.gather_few(mesh, self.sites, self.box)
            energy = energy + (site_charges * (mesh_value - own_value)).sum()
            site_gradient = site_gradient + site_charges[:, None] * (mesh_gradient - own_gradient)
            if self.alone:
                # The site charges are -1/2 times these charges, at the same places.
                back = charges[:, None] * (-0.5 * mesh_gradient[: self.n_atoms])
                source_gradient.index_add_(0, self.geometry.atoms, back)
            else:
                other = self.mesh.convolve(self.mesh.spread(self.sites, site_charges, None, self.box), self.box)
                _, back_gradient = self.mesh.gather(other, places, self.box)
                source_gradient.index_add_(0, self.reference_sources, charges[:, None] * back_gradient)
            no_dipoles = torch.zeros_like(self.sites)
            _, own_back, _ = self._own_pairs(site_charges, no_dipoles)
            source_gradient.index_add_(0, self.geometry.atoms, self.own_charges[:, None] * own_back)
        return energy, site_gradient, source_gradient
