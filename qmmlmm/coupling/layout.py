"""Everything that is known about a term before the first geometry is."""

from __future__ import annotations

from dataclasses import dataclass

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
        Particle indices (origin, towards) that carry a derived charge.
    derived_fractions : (n_derived,) float array
        A derived charge sits at origin + fraction * (towards - origin).
    reference_charges : (n_particles,) float array, e
        Reference charges of this region, and of the other embedded regions, which are in the field of this one
        and whose interaction with it must be counted once; zero for all other particles.
    splitting : float, 1/bohr
        Ewald splitting parameter; zero without a box.
    grid : (int, int, int)
        Mesh of the long-range part; zeros without a box.
    short_range_cutoff : float, bohr
        Sources beyond it act through the mesh alone; infinite without a box.
    """

    source_charges: FloatArray
    derived_bonds: IntArray
    derived_fractions: FloatArray
    reference_charges: FloatArray
    splitting: float
    grid: tuple[int, int, int]
    short_range_cutoff: float


@dataclass(frozen=True)
class TermLayout:
    """One term of the Hamiltonian, resolved against a Topology and a System.

    Parameters
    ----------
    specification : RegionSpecification
        Atomic numbers of the region's atoms, then of its link atoms.
    coefficient : float
    n_particles : int
        Of the whole System.
    atoms : (n_atoms,) int array
        Particle indices of the region's atoms, in the order of the specification.
    anchor : int
        Position in `atoms` of the atom to whose nearest images all others are brought.
    link_bonds : (n_links, 2) int array
        (Position in `atoms` of the region atom, particle index of the outside atom).
    link_ratios : (n_links,) float array
    link_distances : (n_links,) float array, bohr
        A link atom sits at q1 + ratio * (m1 - q1) + distance * (m1 - q1) / |m1 - q1|; one of the two is zero.
    periodic : bool
    surroundings : Surroundings or None
        None with mechanical embedding.
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
