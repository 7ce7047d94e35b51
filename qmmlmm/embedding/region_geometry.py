"""Positions of a region with its link atoms from those of all particles, and the chain rule for forces."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import itertools
from typing import List  # noqa: UP035  (TorchScript reads it)

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.coupling.spanning_tree import spanning_tree
from qmmlmm.embedding.torch_errors import raise_error
from qmmlmm.geometry import Geometry
from qmmlmm.units import BOHR_IN_NM, FloatArray

# The box itself first, so that it wins where images are equally far.
AROUND = sorted(itertools.product((0.0, 1.0, -1.0), repeat=3), key=lambda steps: sum(map(abs, steps)))
"""Boxes next to a box, in numbers of box vectors."""


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


def image_steps(displacements: Tensor, box: Tensor, n_short: int, around: Tensor) -> Tensor:
    """Return the numbers of box vectors that take displacements to their shortest images.

    Parameters
    ----------
    displacements : (n, 3) tensor, bohr
    box : (3, 3) tensor, bohr
        Reduced box vectors of OpenMM, in rows.
    n_short : int
        Number of displacements, the first ones, whose shortest image is well within half the box.
    around : (27, 3) tensor
        `AROUND`.

    Returns
    -------
    (n, 3) tensor of whole numbers
    """
    along_c = -torch.round(displacements[:, 2] / box[2, 2])
    reduced = displacements + along_c[:, None] * box[2]
    along_b = -torch.round(reduced[:, 1] / box[1, 1])
    reduced = reduced + along_b[:, None] * box[1]
    along_a = -torch.round(reduced[:, 0] / box[0, 0])
    reduced = reduced + along_a[:, None] * box[0]
    steps = torch.stack([along_a, along_b, along_c], dim=1)
    if n_short < displacements.shape[0]:
        # In a skewed box a neighbour of this image may be nearer.
        trial = reduced[n_short:, None, :] + torch.matmul(around, box)
        nearest = (trial * trial).sum(dim=-1).argmin(dim=1)
        steps = torch.cat([steps[:n_short], steps[n_short:] + around[nearest]])
    return steps


def shortest_lattice_vector(box: Tensor, around: Tensor) -> Tensor:
    """Return the shortest distance between a particle and its own images, bohr; in very flat boxes a lower bound.

    Notes
    -----
    A sum of box vectors with whole numbers that are not all -1, 0 or 1 is at least as long as 2 c_z, 1.5 b_y or a_x,
    because the vectors are reduced.
    """
    vectors = torch.matmul(around[1:], box)
    shortest = torch.sqrt((vectors * vectors).sum(dim=1)).min()
    return torch.minimum(shortest, torch.minimum(2.0 * box[2, 2], 1.5 * box[1, 1]))


def required_box(box: Tensor | None) -> Tensor:
    """Return the box of a periodic term."""
    if box is None:
        # TorchScript has to see a raise here to know that there is a box below.
        raise RuntimeError("qmmlmm EvaluationError: a term of a periodic System was given no box")
    return box


def _lengths(vectors: Tensor) -> Tensor:
    return torch.sqrt((vectors * vectors).sum(dim=1, keepdim=True))


class RegionGeometry(torch.nn.Module):
    """Positions of a region's sites and of derived charges, with the chain rule of both.

    A region is made whole by its bonds, from its anchor atom on. Each further molecule in it is taken at its image
    closest to the anchor.

    Parameters
    ----------
    layout : TermLayout

    Notes
    -----
    The largest distance between two sites has to be smaller than half the shortest distance between a particle and its
    own images. Then each pair of sites is at its only nearest image, which is the pair that the force field leaves out,
    and a region is nearer to itself than to its images. Without this limit molecules of a region would change the image
    in which they are, and the energy would jump.
    """

    atoms: Tensor
    tree_children: Tensor
    tree_parents: Tensor
    tree_paths: Tensor
    around: Tensor
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
        self.name = layout.specification.name
        self.nm = BOHR_IN_NM
        n_sites = len(layout.atoms) + len(layout.link_bonds)
        self.site_names: List[str] = [layout.site_name(k) for k in range(n_sites)]  # noqa: UP006
        tree = spanning_tree(len(layout.atoms), layout.bonds, self.anchor)
        self.n_bonds_in_tree = tree.n_bonds
        self.register_buffer("tree_children", torch.tensor(tree.children))
        self.register_buffer("tree_parents", torch.tensor(tree.parents))
        self.register_buffer("tree_paths", torch.tensor(tree.paths))
        self.register_buffer("around", torch.tensor(AROUND, dtype=torch.float64))
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
        self.register_buffer("derived_origins", bonds[:, 0].clone())
        self.register_buffer("derived_targets", bonds[:, 1].clone())
        self.register_buffer("derived_fractions", fractions[:, None])

    @torch.jit.export
    def sites(self, positions: Tensor, box: Tensor | None) -> Tensor:
        """Return the whole region's atoms and link atoms, (n_sites, 3) bohr.

        Parameters
        ----------
        positions : (n_particles, 3) tensor, bohr
        box : (3, 3) tensor or None, bohr
            None without periodicity.

        Raises
        ------
        EvaluationError
            If the region is wider than half the box.
        """
        sites = positions[self.atoms]
        if self.periodic and sites.shape[0] > 1:
            vectors = required_box(box)
            edges = sites[self.tree_children] - sites[self.tree_parents]
            steps = torch.matmul(self.tree_paths, image_steps(edges, vectors, self.n_bonds_in_tree, self.around))
            sites = sites + torch.matmul(steps, vectors)
        if self.link_hosts.shape[0] > 0:
            bonds = self._cut_bonds(positions, box)
            along = self.link_ratios + self.link_distances / _lengths(bonds)
            sites = torch.cat([sites, sites[self.link_hosts] + along * bonds])
        if self.periodic:
            self._check_width(sites, required_box(box))
        return sites

    def _check_width(self, sites: Tensor, box: Tensor) -> None:
        """Raise EvaluationError if two sites are further apart than half the distance of a particle to its image."""
        extent = sites.amax(dim=0) - sites.amin(dim=0)
        diagonal = torch.sqrt((extent * extent).sum())
        if bool(diagonal < 0.5 * torch.diagonal(box).min()):  # no image is nearer than this
            return
        half = 0.5 * shortest_lattice_vector(box, self.around)
        distances = torch.cdist(sites, sites, compute_mode="donot_use_mm_for_euclid_dist").reshape(-1)
        widest = int(distances.argmax())
        if bool(distances[widest] >= half):
            n = sites.shape[0]
            first, second = widest // n, widest % n
            apart = float(round(1000.0 * self.nm * float(distances[widest]))) / 1000.0
            limit = float(round(1000.0 * self.nm * float(half))) / 1000.0
            raise_error(
                "EvaluationError",
                f"term '{self.name}': the region is wider than half the box: {self.site_names[first]} and "
                f"{self.site_names[second]} are {apart} nm apart, and half the distance of an atom to its nearest "
                f"image is {limit} nm. Take a larger box, or keep the molecules of the region together by a restraint",
            )

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
