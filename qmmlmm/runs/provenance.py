"""Provenance of a run: versions, platform, seeds and hashes of its inputs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re

import openmm
from openmm import app, unit

PACKAGES = ("qmmlmm", "openmm", "openmmtorch", "torch", "pyscf", "numpy")

# These hold Python objects or a model, whose bytes differ between processes. OpenMM returns the Force of a plug-in,
# such as TorchForce, as a plain Force.
OPAQUE_FORCES = ("Force", "PythonForce", "TorchForce")
VOLATILE = re.compile(r' (?:randomSeed|openmmVersion)="[^"]*"')


def package_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the main packages; None for packages that are not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def describe_platform(context: openmm.Context) -> dict[str, object]:
    """Return the name of the OpenMM platform and its properties, without paths."""
    used = context.getPlatform()
    names = [name for name in used.getPropertyNames() if not re.search("directory|compiler", name, re.IGNORECASE)]
    return {
        "name": used.getName(),
        "properties": {name: used.getPropertyValue(context, name) for name in names},
        "machine": f"{platform.system()} {platform.machine()}",
    }


def describe_integrator(integrator: openmm.Integrator) -> dict[str, object]:
    """Return class, step size and scalar settings of an integrator."""
    settings = {}
    for getter in ("getTemperature", "getFriction", "getConstraintTolerance", "getErrorTolerance"):
        # Each of OpenMM's integrators has some of these methods, without a common base class for them.
        method = getattr(integrator, getter, None)
        if method is not None:
            settings[getter.removeprefix("get")] = str(method())
    return {
        "class": type(integrator).__name__,
        "step size (ps)": integrator.getStepSize().value_in_unit(unit.picosecond),
        "settings": settings,
    }


def random_seeds(simulation: app.Simulation) -> dict[str, int]:
    """Return the random seeds of the integrator and of the forces; zero means that OpenMM chose one."""
    seeds = {}
    for owner in (simulation.integrator, *simulation.system.getForces()):
        # OpenMM's objects with random numbers have this method and share no base class.
        if hasattr(owner, "getRandomNumberSeed"):
            seeds[type(owner).__name__] = int(owner.getRandomNumberSeed())
    return seeds


def hash_system(system: openmm.System) -> str:
    """Return a SHA-256 of a System: particles, constraints, virtual sites and forces.

    It does not include random seeds, the version of OpenMM, the default box, which is part of the state, and the
    content of Python and Torch forces, which `MixedSystem.describe` describes.
    """
    total = hashlib.sha256()
    for index in range(system.getNumParticles()):
        total.update(repr(system.getParticleMass(index)._value).encode())
        if system.isVirtualSite(index):
            site = system.getVirtualSite(index)
            parents = [site.getParticle(k) for k in range(site.getNumParticles())]
            total.update(f"{index} {type(site).__name__} {parents}".encode())
    for index in range(system.getNumConstraints()):
        first, second, length = system.getConstraintParameters(index)
        total.update(f"{first} {second} {length._value!r}".encode())
    for force in system.getForces():
        _add_force(total, force)
    return total.hexdigest()


def _add_force(total: hashlib._Hash, force: openmm.Force) -> None:
    kind = type(force).__name__
    if kind in OPAQUE_FORCES:  # either of them may run the same ML term
        kind = "opaque"
    total.update(f"{kind} {force.getName()} {force.getForceGroup()}".encode())
    if kind == "opaque":
        return
    if isinstance(force, openmm.CustomCVForce):
        total.update(force.getEnergyFunction().encode())
        for index in range(force.getNumCollectiveVariables()):
            _add_force(total, force.getCollectiveVariable(index))
        return
    total.update(VOLATILE.sub("", openmm.XmlSerializer.serialize(force)).encode())


def hash_topology(topology: app.Topology) -> str:
    """Return a SHA-256 of the atoms, residues, chains and bonds of a Topology."""
    total = hashlib.sha256()
    for atom in topology.atoms():
        element = atom.element.symbol if atom.element is not None else ""
        residue = atom.residue
        position = f"{residue.index} {residue.name} {residue.chain.index}"
        total.update(f"{atom.index} {atom.name} {element} {position}".encode())
    for bond in topology.bonds():
        total.update(f"{bond[0].index} {bond[1].index}".encode())
    return total.hexdigest()
