"""A System of some of the particles of another one."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Mapping

import openmm

from qmmlmm.mm.supported_forces import BONDED
from qmmlmm.units import IntArray

_MODE = 2
"""NonbondedForce.CutoffPeriodic in OpenMM's XML."""

_WITHOUT_ENERGY = (openmm.CMMotionRemover,)
_PARTICLE = re.compile(r"p\d*")


def partial_system(
    system: openmm.System, particles: IntArray, moving: Collection[int], without: str
) -> openmm.System | None:
    """Return a System of some particles for the motion of a part of them, or None if a Force has no such part.

    Bonded terms remain that have a moving particle and lie inside. Non-bonded interactions end at the cutoff, with a
    reaction field.

    Parameters
    ----------
    system : openmm.System
        Periodic, with a NonbondedForce that has a cutoff and no parameter offsets, and bonded terms besides.
    particles : (n,) int array
        Ascending.
    moving : collection of int
        Particles whose energy counts, among `particles`.
    without : str
        Name of Forces that are left out.

    Notes
    -----
    The energy is another one: without interactions of the others, and without those beyond the cutoff. It is for a
    model that a constant force on each moving particle corrects.
    """
    forces = list(system.getForces())
    if not all(force.getName() == without or _has_part(force) for force in forces):
        return None
    place = {int(particle): k for k, particle in enumerate(particles)}
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    holder = _child(root, "Particles")
    holder[:] = [holder[int(particle)] for particle in particles]
    for site in (site for particle in holder for site in particle):
        _renumber(site, tuple(name for name in site.attrib if _PARTICLE.fullmatch(name)), place)
    _keep(_child(root, "Constraints"), ("p1", "p2"), place, moving)
    elements = _child(root, "Forces")
    for element, force in zip(list(elements), forces, strict=True):
        if force.getName() == without:
            elements.remove(element)
        elif isinstance(force, openmm.NonbondedForce):
            element.set("method", str(_MODE))
            element.set("dispersionCorrection", "0")
            entries = _child(element, "Particles")
            entries[:] = [entries[int(particle)] for particle in particles]
            # Pairs of particles that do not move are excluded from what counts, too: they are close to each other.
            _keep(_child(element, "Exceptions"), ("p1", "p2"), place, place)
        elif type(force) in BONDED:
            name, attributes = BONDED[type(force)]
            assert attributes is not None
            _keep(_child(element, name), attributes, place, moving)
        else:
            elements.remove(element)
    found = openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))
    assert isinstance(found, openmm.System)
    return found


def _has_part(force: openmm.Force) -> bool:
    if isinstance(force, openmm.NonbondedForce):
        offsets = force.getNumParticleParameterOffsets() + force.getNumExceptionParameterOffsets()
        return force.usesPeriodicBoundaryConditions() and not offsets
    return isinstance(force, _WITHOUT_ENERGY) or BONDED.get(type(force), ("", None))[1] is not None


def _child(element: ElementTree.Element, name: str) -> ElementTree.Element:
    found = element.find(name)
    assert found is not None, f"OpenMM writes no {name}"
    return found


def _keep(
    holder: ElementTree.Element, attributes: tuple[str, ...], place: Mapping[int, int], needed: Collection[int]
) -> None:
    """Keep the terms that lie inside and have a needed particle, with new numbers of their particles."""
    kept = []
    for term in holder:
        members = [int(term.attrib[name]) for name in attributes]
        if all(k in place for k in members) and any(k in needed for k in members):
            _renumber(term, attributes, place)
            kept.append(term)
    holder[:] = kept


def _renumber(element: ElementTree.Element, attributes: tuple[str, ...], place: Mapping[int, int]) -> None:
    for name in attributes:
        element.set(name, str(place[int(element.attrib[name])]))
