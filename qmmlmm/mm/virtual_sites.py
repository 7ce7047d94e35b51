"""Virtual sites that belong to a set of atoms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import openmm

from qmmlmm.errors import UnsupportedSystemError, listed

# SWIG returns a SymmetrySite as a plain VirtualSite, which is recognised by being none of these.
_INSIDE_A_MOLECULE = (
    openmm.LocalCoordinatesSite,
    openmm.OutOfPlaneSite,
    openmm.ThreeParticleAverageSite,
    openmm.TwoParticleAverageSite,
)


def _sites(system: openmm.System) -> Iterator[tuple[int, tuple[int, ...], bool]]:
    """Yield index and parents of each virtual site, and whether it is a symmetry image."""
    for index in range(system.getNumParticles()):
        if system.isVirtualSite(index):
            site = system.getVirtualSite(index)
            parents = tuple(site.getParticle(k) for k in range(site.getNumParticles()))
            yield index, parents, not isinstance(site, _INSIDE_A_MOLECULE)


def complete_with_virtual_sites(system: openmm.System, atoms: Iterable[int]) -> tuple[int, ...]:
    """Return atoms together with their virtual sites.

    Parameters
    ----------
    system : openmm.System
    atoms : iterable of int
        Atoms, which may include some or all of the virtual sites.

    Returns
    -------
    tuple of int
        Sorted particle indices.

    Raises
    ------
    UnsupportedSystemError
        If a virtual site has parents inside and outside, or is inside without its parents, or is the
        symmetry image of an atom inside.
    """
    inside = set(atoms)
    sites = list(_sites(system))
    size = -1
    while size != len(inside):  # a virtual site may be the parent of another one
        size = len(inside)
        inside.update(index for index, parents, image in sites if not image and inside.issuperset(parents))
    check_virtual_sites(system, inside)
    return tuple(sorted(inside))


def check_virtual_sites(system: openmm.System, particles: Iterable[int], name: str | None = None) -> None:
    """Raise unless every virtual site and all its parents are either inside or outside.

    Parameters
    ----------
    system : openmm.System
    particles : iterable of int
    name : str, optional
        Name of the region, for the message.

    Raises
    ------
    UnsupportedSystemError
        If the border of the particles cuts a virtual site, or one of them has symmetry images.
    """
    inside = set(particles)
    region = "the region" if name is None else f"region {name!r}"
    for index, parents, image in _sites(system):
        members = {index, *parents}
        if not members & inside:
            continue
        if image:
            raise UnsupportedSystemError(
                f"particle {index} is a symmetry image (SymmetrySite) of particle {parents[0]}, and {region} "
                "contains one of them; the interaction of a region with its symmetry images is not supported"
            )
        if not members <= inside:
            raise UnsupportedSystemError(
                f"{region} cuts virtual site {index}, whose parents are {listed(parents)}: "
                f"add particles {listed(sorted(members - inside))} or remove {listed(sorted(members & inside))}"
            )
