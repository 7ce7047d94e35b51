"""Everything about a term that does not depend on the geometry."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.units import FloatArray, IntArray


@dataclass(frozen=True)
class Surroundings:
    """The charges that an electrostatically embedded region feels.

    The sources are all particles of the System followed by the derived charges of cut bonds. The region's own
    atoms are among them with their reference charges: only the images of these act on the region.

    Parameters
    ----------
    source_charges : (n_particles + n_derived,) float array, e
    derived_bonds : (n_derived, 2) int array
        Particle indices (origin, towards) of each derived charge.
    derived_fractions : (n_derived,) float array
        A derived charge sits at origin + fraction * (towards - origin).
    reference_charges : (n_particles,) float array, e
        Reference charges of this region and of the other embedded regions, whose interaction with it counts once;
        zero for all other particles.
    splitting : float, 1/bohr
        Ewald splitting parameter; zero without a box.
    grid : (int, int, int)
        Mesh of the long-range part; zeros without a box.
    short_range_cutoff : float, bohr
        Distance beyond which sources act only through the mesh; infinite without a box.
    source_widths : (n_particles + n_derived,) float array or None, bohr
        Widths of Gaussian charges, zero for points, see `qmmlmm.coupling.smeared_charges`; None if all are points.
    """

    source_charges: FloatArray
    derived_bonds: IntArray
    derived_fractions: FloatArray
    reference_charges: FloatArray
    splitting: float
    grid: tuple[int, int, int]
    short_range_cutoff: float
    source_widths: FloatArray | None = None


@dataclass(frozen=True)
class TermLayout:
    """One term of the Hamiltonian, resolved against a Topology and a System.

    Parameters
    ----------
    specification : RegionSpecification
        Atomic numbers of the region's atoms, then of its link atoms.
    coefficient : float
        One if the coefficient depends on parameters; it is then applied to the result of the term.
    n_particles : int
        Number of particles of the System.
    atoms : (n_atoms,) int array
        Particle indices of the region's atoms, in the order of the specification.
    anchor : int
        Position in `atoms` of the atom around which the region is made whole.
    link_bonds : (n_links, 2) int array
        (Position in `atoms` of the region atom, particle index of the outside atom).
    link_ratios : (n_links,) float array
    link_distances : (n_links,) float array, bohr
        A link atom sits at q1 + ratio * (m1 - q1) + distance * (m1 - q1) / |m1 - q1|; one of the two is zero.
    periodic : bool
    surroundings : Surroundings or None
        None with mechanical embedding.
    bonds : (n_bonds, 2) int array
        Positions in `atoms` of the bonded pairs inside the region, which make its molecules whole.
    labels : tuple of str
        Names of the particles in messages; if empty, messages give their indices.
    correction : bool
        Whether the term is a difference between two levels, which has no part in the interaction of reference charges.
    """

    specification: RegionSpecification
    coefficient: float
    n_particles: int
    atoms: IntArray
    anchor: int
    link_bonds: IntArray
    link_ratios: FloatArray
    link_distances: FloatArray
    periodic: bool
    surroundings: Surroundings | None
    bonds: IntArray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    labels: tuple[str, ...] = ()
    correction: bool = False

    @property
    def particles(self) -> IntArray:
        """Particles on which a term without surroundings depends: the region, and the outer atoms of cut bonds."""
        return np.unique(np.concatenate([self.atoms, self.link_bonds[:, 1]])).astype(np.int64)

    def particle_name(self, index: int) -> str:
        """Return the name of a particle in messages."""
        return self.labels[index] if self.labels else f"atom {index}"

    def site_name(self, index: int) -> str:
        """Return the name in messages of an atom of the region or of a link atom."""
        if index < len(self.atoms):
            return self.particle_name(int(self.atoms[index]))
        host, outside = self.link_bonds[index - len(self.atoms)]
        return (
            f"the link atom between {self.particle_name(int(self.atoms[host]))} and {self.particle_name(int(outside))}"
        )

    def source_name(self, index: int) -> str:
        """Return the name in messages of a source of the field: a particle or a derived charge."""
        if index < self.n_particles or self.surroundings is None:
            return self.particle_name(index)
        origin, towards = self.surroundings.derived_bonds[index - self.n_particles]
        return f"the boundary charge between {self.particle_name(int(origin))} and {self.particle_name(int(towards))}"
