"""Positions of a region with its link atoms from those of all particles, and the chain rule for forces."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.geometry import Geometry
from qmmlmm.units import FloatArray


def nearest_image(displacements: Tensor, box: Tensor) -> Tensor:
    """Return displacements to the nearest periodic image, for pairs well within half the box.

    Parameters
    ----------
    displacements : (n, 3) tensor, bohr
    box : (3, 3) tensor, bohr
        Reduced box vectors of OpenMM, in rows.
    """
    result = displacements - torch.round(displacements[:, 2:3] / box[2, 2]) * box[2]
    result = result - torch.round(result[:, 1:2] / box[1, 1]) * box[1]
    return result - torch.round(result[:, 0:1] / box[0, 0]) * box[0]


def nearest_displacements(displacements: FloatArray, box: FloatArray | None) -> FloatArray:
    """Return displacements, (n, 3), to the nearest image; without a box they are unchanged."""
    if box is None:
        return displacements
    return np.asarray(nearest_image(torch.from_numpy(displacements), torch.from_numpy(box)).numpy())


def tensors_of(geometry: Geometry) -> tuple[Tensor, Tensor | None]:
    """Return positions and box of a geometry as tensors that share its memory."""
    return torch.from_numpy(geometry.positions), None if geometry.box is None else torch.from_numpy(geometry.box)


def required_box(box: Tensor | None) -> Tensor:
    """Return the box of a periodic term."""
    if box is None:
        # TorchScript raises built-in exceptions only; the text names the class.
        raise RuntimeError("EvaluationError: a term of a periodic System was given no box")
    return box


def _lengths(vectors: Tensor) -> Tensor:
    return torch.sqrt((vectors * vectors).sum(dim=1, keepdim=True))


class RegionGeometry(torch.nn.Module):
    """Positions of a region's sites and of derived charges, with the chain rule of both.

    A region is made whole around its anchor atom: each atom is taken at its image closest to the anchor. The region has
    to be smaller than half the box.

    Parameters
    ----------
    layout : TermLayout
    """

    atoms: Tensor
    link_hosts: Tensor
    link_partners: Tensor
    link_ratios: Tensor
    link_distances: Tensor
    derived_origins: Tensor
    derived_targets: Tensor
    derived_fractions: Tensor

    def __init__(self, layout: TermLayout) -> None:
        super().__init__()
        self.periodic = layout.periodic
        self.n_particles = layout.n_particles
        self.anchor = int(layout.anchor)
        self.register_buffer("atoms", torch.tensor(layout.atoms))
        self.register_buffer("link_hosts", torch.tensor(layout.link_bonds[:, 0]))
        self.register_buffer("link_partners", torch.tensor(layout.link_bonds[:, 1]))
        self.register_buffer("link_ratios", torch.tensor(layout.link_ratios)[:, None])
        self.register_buffer("link_distances", torch.tensor(layout.link_distances)[:, None])
        if layout.surroundings is not None:
            bonds = torch.tensor(layout.surroundings.derived_bonds)
            fractions = torch.tensor(layout.surroundings.derived_fractions)
        else:
            bonds = torch.zeros((0, 2), dtype=torch.int64)
            fractions = torch.zeros(0, dtype=torch.float64)
        self.register_buffer("derived_origins", bonds[:, 0].contiguous())
        self.register_buffer("derived_targets", bonds[:, 1].contiguous())
        self.register_buffer("derived_fractions", fractions[:, None])

    @torch.jit.export
    def sites(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return the whole region's atoms and link atoms, (n_sites, 3) bohr.

        Parameters
        ----------
        positions : (n_particles, 3) tensor, bohr
        box : (3, 3) tensor or None, bohr
            None without periodicity.
        """
        atoms = positions[self.atoms]
        if self.periodic:
            origin = atoms[self.anchor]
            atoms = origin + nearest_image(atoms - origin, required_box(box))
        if self.link_hosts.shape[0] == 0:
            return atoms
        bonds = self._cut_bonds(positions, box)
        along = self.link_ratios + self.link_distances / _lengths(bonds)
        return torch.cat([atoms, atoms[self.link_hosts] + along * bonds])

    def _cut_bonds(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return m1 - q1 of the cut bonds, (n_links, 3) bohr."""
        bonds = positions[self.link_partners] - positions[self.atoms[self.link_hosts]]
        if self.periodic:
            bonds = nearest_image(bonds, required_box(box))
        return bonds

    @torch.jit.export
    def sources(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return the particles and the derived charges, (n_particles + n_derived, 3) bohr."""
        if self.derived_origins.shape[0] == 0:
            return positions
        origins = positions[self.derived_origins]
        bonds = positions[self.derived_targets] - origins
        if self.periodic:
            bonds = nearest_image(bonds, required_box(box))
        return torch.cat([positions, origins + self.derived_fractions * bonds])

    @torch.jit.export
    def collect(
        self,
        site_gradient: Tensor,
        source_gradient: Tensor,
        positions: Tensor,
        box: Tensor | None,
    ) -> Tensor:
        """Return the gradient with respect to the particles from those with respect to sites and sources.

        Parameters
        ----------
        site_gradient : (n_sites, 3) tensor, hartree/bohr
        source_gradient : (n_particles + n_derived, 3) tensor, hartree/bohr
            No rows if there are no surroundings.
        positions : (n_particles, 3) tensor, bohr
            As for `sites`; a link atom at a fixed distance depends on the direction of its bond.
        box : (3, 3) tensor or None, bohr

        Returns
        -------
        (n_particles, 3) tensor, hartree/bohr

        Notes
        -----
        With b = m1 - q1, a link atom at q1 + g b + d b/|b| and its gradient G, m1 gets g G + d (G - b (b . G)/b^2)/|b|
        and q1 the rest of G.
        """
        if source_gradient.shape[0] == 0:
            gradient = torch.zeros((self.n_particles, 3), dtype=site_gradient.dtype, device=site_gradient.device)
        else:
            gradient = source_gradient[: self.n_particles].clone()
            derived = source_gradient[self.n_particles :]
            if derived.shape[0] > 0:
                gradient.index_add_(0, self.derived_origins, (1.0 - self.derived_fractions) * derived)
                gradient.index_add_(0, self.derived_targets, self.derived_fractions * derived)
        n_atoms = self.atoms.shape[0]
        gradient.index_add_(0, self.atoms, site_gradient[:n_atoms])
        links = site_gradient[n_atoms:]
        if links.shape[0] > 0:
            bonds = self._cut_bonds(positions, box)
            lengths = _lengths(bonds)
            unit = bonds / lengths
            across = links - unit * (unit * links).sum(dim=1, keepdim=True)
            on_partners = self.link_ratios * links + self.link_distances / lengths * across
            gradient.index_add_(0, self.atoms[self.link_hosts], links - on_partners)
            gradient.index_add_(0, self.link_partners, on_partners)
        return gradient
