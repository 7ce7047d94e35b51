"""Regions whose energy comes from an OpenMM System of their own: a force field, or a potential of openmm-ml."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openmm
from openmm import app, unit
from scipy.special import erf

from qmmlmm.coupling.potential import Evaluation, ExternalField, RegionSpecification
from qmmlmm.errors import EvaluationError, MissingDependencyError, PotentialError
from qmmlmm.mm.electrostatics import force_field_charges
from qmmlmm.units import BOHR_IN_NM, FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, FloatArray

SMALL_ARGUMENT = 1e-3
"""Below this value of a*r the limits of erf(a r)/r at r = 0 are used; they are good to 1e-7 of a."""


PLACEHOLDER_BOX = 10.0
"""Edge in nm of the box with which a long-range model is set up."""


@dataclass(frozen=True)
class OpenMMPotential:
    """The energy of a small OpenMM System as the energy of a region.

    With electrostatic embedding the charges of its NonbondedForce feel the surroundings: a region of fixed
    charges. So one region can have another force field than the rest, and a region with its own force field
    gives back the plain force field.

    Parameters
    ----------
    system : openmm.System
        Its particles are the region's atoms in their order, then the link atoms. Without a box.
    level : str
        Second part of the term's name.
    platform : str
        Name of the OpenMM platform that computes it.

    Raises
    ------
    PotentialError
        If the System is periodic.
    """

    system: openmm.System
    level: str = "MM"
    platform: str = "Reference"

    def __post_init__(self) -> None:
        if not isinstance(self.system, openmm.System):
            raise PotentialError(f"an OpenMMPotential needs an openmm.System, got {type(self.system).__name__}")
        if self.system.usesPeriodicBoundaryConditions():
            raise PotentialError(
                "the System of an OpenMMPotential has a box; make it with nonbondedMethod=NoCutoff: the images of a "
                "region are part of the embedding"
            )

    @property
    def embeddings(self) -> frozenset[str]:
        """Electrostatic embedding needs charges, thus exactly one NonbondedForce."""
        forces = [f for f in self.system.getForces() if isinstance(f, openmm.NonbondedForce)]
        return frozenset({"mechanical", "electrostatic"} if len(forces) == 1 else {"mechanical"})

    @property
    def takes_smeared_charges(self) -> bool:
        """Charges of the surroundings may be Gaussian distributions."""
        return True

    def check(self, specification: RegionSpecification) -> None:
        """Raise PotentialError if the number of particles is not that of the region."""
        n = len(specification.atomic_numbers)
        if self.system.getNumParticles() != n:
            raise PotentialError(
                f"term {specification.name!r}: the region has {n} atoms with its link atoms, the System of the "
                f"OpenMMPotential has {self.system.getNumParticles()} particles"
            )

    def create_evaluator(self, specification: RegionSpecification) -> OpenMMEvaluator:
        """Return a fresh evaluator for one region."""
        self.check(specification)
        charges = force_field_charges(self.system) if "electrostatic" in self.embeddings else None
        return OpenMMEvaluator(specification.name, self.system, self.platform, charges)

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (openmm.XmlSerializer.serialize(self.system), self.level, self.platform))

    def __repr__(self) -> str:
        digest = hashlib.sha256(openmm.XmlSerializer.serialize(self.system).encode()).hexdigest()[:16]
        return (
            f"OpenMMPotential({self.system.getNumParticles()} particles, platform={self.platform!r}, "
            f"fingerprint={digest!r})"
        )


def _restore(xml: str, level: str, platform: str) -> OpenMMPotential:
    return OpenMMPotential(openmm.XmlSerializer.deserialize(xml), level, platform)


class OpenMMEvaluator:
    """Computes a region in a Context of its own.

    Parameters
    ----------
    name : str
        Of the term, for messages.
    system : openmm.System
    platform : str
    charges : (n,) float array or None, e
        They feel an external field.
    """

    def __init__(self, name: str, system: openmm.System, platform: str, charges: FloatArray | None) -> None:
        self._name = name
        self._charges = charges
        # The Context keeps the System alive, but the integrator has to be kept here.
        self._integrator = openmm.VerletIntegrator(0.001)
        self._context = openmm.Context(system, self._integrator, openmm.Platform.getPlatform(platform))

    def evaluate_in_box(self, positions: FloatArray, box: FloatArray) -> Evaluation:
        """Return energy and derivatives, see `qmmlmm.coupling.potential.PeriodicEvaluator`."""
        try:
            self._context.setPeriodicBoxVectors(*(box * BOHR_IN_NM))
        except openmm.OpenMMException as error:
            raise EvaluationError(f"term {self._name!r}: the inner OpenMM Context failed: {error}") from error
        return self.evaluate(positions, None)

    def evaluate(self, positions: FloatArray, external_field: ExternalField | None) -> Evaluation:
        """Return energy and derivatives, see `qmmlmm.coupling.potential.Evaluator`."""
        try:
            self._context.setPositions(positions * BOHR_IN_NM)
            state = self._context.getState(energy=True, forces=True)
        except openmm.OpenMMException as error:
            raise EvaluationError(f"term {self._name!r}: the inner OpenMM Context failed: {error}") from error
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / HARTREE_IN_KJ_PER_MOL
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        gradient = -np.asarray(forces) / FORCE_AU_IN_OPENMM
        if external_field is None:
            return Evaluation(energy, gradient)
        assert self._charges is not None
        in_field = charges_in_field(positions, self._charges, external_field)
        return Evaluation(
            energy + in_field.energy,
            gradient + in_field.gradient,
            in_field.charge_gradient,
            in_field.smooth_points,
            in_field.smooth_charges,
            charge_energies=in_field.charge_energies,
        )


def charges_in_field(positions: FloatArray, charges: FloatArray, external_field: ExternalField) -> Evaluation:
    """Return the energy of fixed charges in an external field and its derivatives.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
    charges : (n,) float array, e
    external_field : ExternalField
    """
    delta = positions[:, None, :] - external_field.positions[None, :, :]
    r = np.linalg.norm(delta, axis=2)
    value = np.zeros_like(r)
    slope = np.zeros_like(r)  # the kernel's derivative divided by r
    points = external_field.point_charges
    at_point = points != 0.0
    widths = external_field.widths
    if widths is not None:
        extended = at_point & (widths > 0.0)
        at_point &= ~extended
        kernel, kernel_slope = _smeared_kernel(r[:, extended], 1.0 / widths[extended])
        value[:, extended] += points[extended] * kernel
        slope[:, extended] += points[extended] * kernel_slope
    value[:, at_point] += points[at_point] / r[:, at_point]
    slope[:, at_point] -= points[at_point] / r[:, at_point] ** 3
    a = external_field.splitting
    if a is not None:
        smeared, smeared_slope = _smeared_kernel(r, a)
        value += external_field.gaussian_charges * smeared
        slope += external_field.gaussian_charges * smeared_slope
    pull = (charges[:, None] * slope)[:, :, None] * delta
    charge_energies = charges @ value
    energy = float(charge_energies.sum())
    gradient = pull.sum(axis=1)
    if external_field.smooth_potential is not None:
        smooth, smooth_gradient = external_field.smooth_potential(positions)
        energy += float(charges @ smooth)
        gradient = gradient + charges[:, None] * smooth_gradient
    return Evaluation(
        energy, gradient, -pull.sum(axis=0), positions, charges, charge_energies=lambda: np.asarray(charge_energies)
    )


def _smeared_kernel(r: FloatArray, a: float | FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return erf(a r)/r and its derivative divided by r, for one a or one for each column of r."""
    small = a * r < SMALL_ARGUMENT
    safe = np.where(small, 1.0, r)
    gaussian = 2.0 * a / math.sqrt(math.pi) * np.exp(-((a * safe) ** 2))
    value = erf(a * safe) / safe
    slope = (gaussian - value) / safe**2
    limit = 2.0 * a / math.sqrt(math.pi)
    return (
        np.where(small, limit * (1.0 - (a * r) ** 2 / 3.0), value),
        np.where(small, -2.0 / 3.0 * limit * a * a, slope),
    )


@dataclass(frozen=True)
class OpenMMMLPotential:
    """A potential of the package openmm-ml (MACE, AIMNet2, ANI, ...) as the energy of a region.

    It sees the region with its link atoms and nothing else: mechanical embedding. In a box the region's own images
    act through the force field's charges, unless the model computes them. openmm-ml reads the model's file; where that
    is a pickle, as MACE's are, it can run code: use files that you trust.

    Parameters
    ----------
    potential : openmmml.MLPotential
        For example ``openmmml.MLPotential("mace", modelPath="site.model")``.
    options : mapping of str to object
        What `openmmml.MLPotential.createSystem` would get as keyword arguments.
    platform : str
        Name of the OpenMM platform of the inner Context; the model's own device follows openmm-ml.
    long_range : bool
        True for a model with Ewald electrostatics of its own: in a box it is given the box, and the interaction
        of the region with its own images is taken out of the force field.

    Raises
    ------
    MissingDependencyError
        If openmm-ml is not installed.
    PotentialError
        If `potential` is something else.
    """

    potential: Any
    options: Mapping[str, object] = field(default_factory=dict)
    platform: str = "Reference"
    long_range: bool = False
    level: str = field(default="ML", init=False)
    embeddings: frozenset[str] = field(default=frozenset({"mechanical"}), init=False)

    def __post_init__(self) -> None:
        try:
            import openmmml
        except ImportError as error:
            raise MissingDependencyError(
                f"a potential of openmm-ml needs the package openmmml: {error}; pip install openmmml"
            ) from error
        if not isinstance(self.potential, openmmml.MLPotential):
            raise PotentialError(
                f"OpenMMMLPotential takes an openmmml.MLPotential, got {type(self.potential).__name__}; write "
                'OpenMMMLPotential(openmmml.MLPotential("mace", modelPath="site.model"))'
            )

    def __repr__(self) -> str:
        implementation = type(self.potential._impl).__name__
        return (
            f"OpenMMMLPotential({implementation}, options={dict(self.options)!r}, platform={self.platform!r}, "
            f"long_range={self.long_range})"
        )

    def check(self, specification: RegionSpecification) -> None:
        """Elements, charge and multiplicity are checked by openmm-ml when the evaluator is made."""

    def create_evaluator(self, specification: RegionSpecification) -> OpenMMEvaluator:
        """Return a fresh evaluator for one region.

        Raises
        ------
        PotentialError
            If openmm-ml refuses the region.
        """
        topology = app.Topology()
        residue = topology.addResidue("REG", topology.addChain())
        for k, number in enumerate(specification.atomic_numbers):
            element = app.Element.getByAtomicNumber(int(number))
            topology.addAtom(f"{element.symbol}{k + 1}", element, residue)
        if self.long_range:
            # From this openmm-ml knows that there is a box; the real one comes with each geometry.
            topology.setPeriodicBoxVectors(PLACEHOLDER_BOX * np.eye(3) * unit.nanometer)
        options = {"charge": specification.charge, "multiplicity": specification.multiplicity, **self.options}
        try:
            system = self.potential.createSystem(topology, removeCMMotion=False, **options)
        except Exception as error:
            raise PotentialError(
                f"term {specification.name!r}: openmm-ml cannot treat this region: {type(error).__name__}: {error}"
            ) from error
        return OpenMMEvaluator(specification.name, system, self.platform, None)
