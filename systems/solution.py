"""Solutions: a box of water, ions, and a solute that keeps its own parameters."""

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit

from systems.coordinates import Coordinates
from systems.options import NONBONDED_METHODS, SystemOptions, with_option_keywords

WATER_SITES = {"tip3p": 3, "tip4pew": 4}
WATER_XML = {"tip3p": "amber14/tip3p.xml", "tip4pew": "amber14/tip4pew.xml"}

DEFAULT = SystemOptions()


@dataclass(frozen=True)
class Solvent:
    """What follows the solute: first the ions, then the water.

    Attributes
    ----------
    n_water : int
        Number of water molecules.
    n_sodium, n_chloride : int
        Number of ions.
    water_model : str
        "tip3p" or "tip4pew".
    """

    n_water: int
    n_sodium: int = 0
    n_chloride: int = 0
    water_model: str = "tip3p"

    def __post_init__(self) -> None:
        if self.water_model not in WATER_SITES:
            raise ValueError(f"the water model is one of {', '.join(WATER_SITES)}, and {self.water_model!r} was given")


def join_topologies(
    solute: app.Topology,
    solvent: Solvent,
    box_vectors: unit.Quantity,
    residue_names: dict[str, str] | None = None,
    chain_of_residue: dict[str, str] | None = None,
) -> app.Topology:
    """Topology of a solute followed by ions and water.

    Parameters
    ----------
    solute : openmm.app.Topology
        Copied with all its bonds; residues keep their numbers.
    solvent : Solvent
        Chains "I" (ions NA and CL) and "W" (water HOH with atoms O, H1, H2 and, in TIP4P-Ew, M).
    box_vectors : Quantity
        Three Vec3.
    residue_names : dict of str to str
        New names for residues of the solute.
    chain_of_residue : dict of str to str
        For residues that get a chain of their own: chain identifier by (new) residue name.

    Returns
    -------
    openmm.app.Topology
        With periodic box vectors.
    """
    residue_names = residue_names or {}
    chain_of_residue = chain_of_residue or {}
    topology = app.Topology()
    new_atoms = {}
    for chain in solute.chains():
        new_chain = None
        for residue in chain.residues():
            name = residue_names.get(residue.name, residue.name)
            if name in chain_of_residue:
                target = topology.addChain(chain_of_residue[name])
                new_chain = None
            else:
                new_chain = new_chain or topology.addChain("A")
                target = new_chain
            new_residue = topology.addResidue(name, target, residue.id, residue.insertionCode)
            for atom in residue.atoms():
                new_atoms[atom] = topology.addAtom(atom.name, atom.element, new_residue)
    for bond in solute.bonds():
        topology.addBond(new_atoms[bond.atom1], new_atoms[bond.atom2], bond.type, bond.order)

    if solvent.n_sodium or solvent.n_chloride:
        chain = topology.addChain("I")
        ions = [app.element.sodium] * solvent.n_sodium + [app.element.chlorine] * solvent.n_chloride
        for number, element in enumerate(ions, start=1):
            residue = topology.addResidue(element.symbol.upper(), chain, str(number))
            topology.addAtom(element.symbol, element, residue)
    chain = topology.addChain("W")
    for number in range(1, solvent.n_water + 1):
        residue = topology.addResidue("HOH", chain, str(number))
        oxygen = topology.addAtom("O", app.element.oxygen, residue)
        for name in ("H1", "H2"):
            topology.addBond(oxygen, topology.addAtom(name, app.element.hydrogen, residue))
        if WATER_SITES[solvent.water_model] == 4:
            topology.addAtom("M", None, residue)
    topology.setPeriodicBoxVectors(box_vectors)
    return topology


@with_option_keywords
def solution_system(
    solute: openmm.System, solvent: Solvent, box_vectors: unit.Quantity, *, options: SystemOptions = DEFAULT
) -> openmm.System:
    """System of a solute with its own parameters, followed by ions and water from OpenMM's Amber files.

    Parameters
    ----------
    solute : openmm.System
        Made without cutoff. It is changed into the result.
    solvent : Solvent
        Ions and water.
    box_vectors : Quantity
        Three Vec3.
    options : SystemOptions
        Constraints, rigid water and hydrogen mass act on the solvent here; the solute has its own already. Each field
        can be given as a keyword.

    Returns
    -------
    openmm.System
        The solute's System with the solvent's particles at its end.
    """
    bare = join_topologies(app.Topology(), solvent, box_vectors)
    extra = app.ForceField(WATER_XML[solvent.water_model]).createSystem(bare, **options.part().arguments())
    append_system(solute, extra)
    for force in solute.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setNonbondedMethod(NONBONDED_METHODS[options.method()])
            force.setCutoffDistance(options.nonbonded_cutoff)
            force.setEwaldErrorTolerance(options.ewald_error_tolerance)
            force.setUseDispersionCorrection(True)
            if options.switch_distance is not None:
                force.setUseSwitchingFunction(True)
                force.setSwitchingDistance(options.switch_distance)
    if options.remove_cm_motion:
        solute.addForce(openmm.CMMotionRemover())
    solute.setDefaultPeriodicBoxVectors(*box_vectors)
    return solute


def append_system(system: openmm.System, extra: openmm.System) -> None:
    """Put the particles, constraints and terms of one System at the end of another.

    Parameters
    ----------
    system : openmm.System
        Is extended.
    extra : openmm.System
        Is not changed. Both need a NonbondedForce with Lorentz-Berthelot rules.

    Raises
    ------
    ValueError
        If a Force class has terms that cannot be appended here, or `system` lacks it.
    """
    offset = system.getNumParticles()
    for i in range(extra.getNumParticles()):
        system.addParticle(extra.getParticleMass(i))
    for i in range(extra.getNumParticles()):
        if extra.isVirtualSite(i):
            site = extra.getVirtualSite(i)
            if not isinstance(site, openmm.ThreeParticleAverageSite):
                raise ValueError(
                    f"particle {i} is a {type(site).__name__}; only ThreeParticleAverageSite is known here"
                )
            system.setVirtualSite(
                offset + i,
                openmm.ThreeParticleAverageSite(
                    *(offset + site.getParticle(k) for k in range(3)), *(site.getWeight(k) for k in range(3))
                ),
            )
    for i in range(extra.getNumConstraints()):
        a, b, distance = extra.getConstraintParameters(i)
        system.addConstraint(offset + a, offset + b, distance)

    targets = {type(force): force for force in system.getForces()}
    for force in extra.getForces():
        kind = type(force)
        if kind not in targets:
            if _n_terms(force) == 0:
                continue
            raise ValueError(f"the System to extend has no {kind.__name__}, which the other System has")
        target = targets[kind]
        if kind is openmm.HarmonicBondForce:
            for i in range(force.getNumBonds()):
                a, b, *parameters = force.getBondParameters(i)
                target.addBond(offset + a, offset + b, *parameters)
        elif kind is openmm.HarmonicAngleForce:
            for i in range(force.getNumAngles()):
                a, b, c, *parameters = force.getAngleParameters(i)
                target.addAngle(offset + a, offset + b, offset + c, *parameters)
        elif kind is openmm.NonbondedForce:
            for i in range(force.getNumParticles()):
                target.addParticle(*force.getParticleParameters(i))
            for i in range(force.getNumExceptions()):
                a, b, *parameters = force.getExceptionParameters(i)
                target.addException(offset + a, offset + b, *parameters)
        elif _n_terms(force):
            raise ValueError(
                f"terms of a {kind.__name__} cannot be appended; known are HarmonicBondForce, "
                "HarmonicAngleForce and NonbondedForce"
            )


def _n_terms(force: openmm.Force) -> int:
    """Number of terms of a bonded Force; one for a class that does not count them."""
    for count in ("getNumBonds", "getNumAngles", "getNumTorsions"):
        if hasattr(force, count):
            return int(getattr(force, count)())
    return 1


def place_solvent(
    solute_positions: np.ndarray,
    box_vectors: np.ndarray,
    solvent: Solvent,
    rng: np.random.Generator,
    *,
    clearance: float = 0.26,
    ion_distance: float = 0.5,
) -> Coordinates:
    """Positions of ions and water around a solute, from OpenMM's equilibrated water box.

    Parameters
    ----------
    solute_positions : (n_solute, 3) float array, nm
        May be empty.
    box_vectors : (3, 3) float array, nm
        Reduced form.
    solvent : Solvent
        Ions and water; waters that are left over are taken out at random.
    rng : numpy.random.Generator
        Chooses waters that become ions or leave.
    clearance : float, nm
        Waters with an oxygen closer than this to a solute atom leave.
    ion_distance : float, nm
        Least distance of ions from the solute and from each other.

    Returns
    -------
    Coordinates
        Solute, sodium, chloride, water, in this order.

    Raises
    ------
    ValueError
        If the box holds fewer waters than asked for.
    """
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    vectors = Coordinates(np.empty((0, 3)), box_vectors).box_quantity
    modeller.addSolvent(
        app.ForceField(WATER_XML[solvent.water_model]),
        model=solvent.water_model,
        boxVectors=vectors,
        neutralize=False,
    )
    sites = WATER_SITES[solvent.water_model]
    water = np.array(modeller.positions.value_in_unit(unit.nanometer)).reshape(-1, sites, 3)
    nearest = nearest_distances(water[:, 0], solute_positions, box_vectors)
    keep = nearest > clearance
    water, nearest = water[keep], nearest[keep]
    n_ions = solvent.n_sodium + solvent.n_chloride
    if len(water) < solvent.n_water + n_ions:
        raise ValueError(
            f"the box holds {len(water)} waters, and {solvent.n_water} waters with {n_ions} ions were asked "
            "for; make the box larger or ask for fewer"
        )
    order = rng.permutation(len(water))
    ions: list[int] = []
    for i in order:
        if len(ions) == n_ions:
            break
        between_ions = nearest_distances(water[i, :1], water[ions, 0], box_vectors)[0]
        if min(nearest[i], between_ions) > ion_distance:
            ions.append(int(i))
    chosen = set(ions)
    rest = np.sort(np.array([i for i in order if int(i) not in chosen])[: solvent.n_water])
    positions = np.concatenate([solute_positions.reshape(-1, 3), water[ions, 0], water[rest].reshape(-1, 3)])
    return Coordinates(positions, box_vectors)


def nearest_distances(points: np.ndarray, others: np.ndarray, box_vectors: np.ndarray) -> np.ndarray:
    """Distance of every point to the nearest image of any other point.

    Parameters
    ----------
    points : (n_points, 3) float array, nm
        Centres.
    others : (n_others, 3) float array, nm
        Partners; with none the distances are infinite.
    box_vectors : (3, 3) float array, nm
        Reduced form; exact for distances below half the shortest box width.

    Returns
    -------
    (n_points,) float array, nm
        Distances.
    """
    nearest = np.full(len(points), np.inf)
    if len(others) == 0:
        return nearest
    block = 256  # bounds the memory: block * n_others * 3 numbers
    for start in range(0, len(points), block):
        delta = points[start : start + block, None] - others[None]
        # OpenMM's reduced vectors: removing c, then b, then a gives the nearest image.
        for axis in (2, 1, 0):
            delta -= np.round(delta[..., axis : axis + 1] / box_vectors[axis, axis]) * box_vectors[axis]
        nearest[start : start + block] = np.sqrt((delta**2).sum(axis=-1).min(axis=1))
    return nearest


def solvent_molecules(solvent: Solvent, n_solute: int) -> list[list[int]]:
    """Atom indices of every ion and water behind a solute.

    Parameters
    ----------
    solvent : Solvent
        Ions and water.
    n_solute : int
        Number of atoms before them.

    Returns
    -------
    list of lists of int
        One list per molecule.
    """
    n_ions = solvent.n_sodium + solvent.n_chloride
    sites = WATER_SITES[solvent.water_model]
    first = n_solute + n_ions
    return [[n_solute + i] for i in range(n_ions)] + [
        list(range(first + sites * i, first + sites * (i + 1))) for i in range(solvent.n_water)
    ]
