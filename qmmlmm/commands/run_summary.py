"""What a run will do, as text: particles, regions, terms, stages, evaluations, files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from openmm import unit

from qmmlmm.commands.run_input import RunInput
from qmmlmm.commands.staged_run import StagedRun
from qmmlmm.coupling.potential import RegionPotential
from qmmlmm.errors import listed, signed
from qmmlmm.ml import EmbeddedPotential
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.qm import PySCFPotential
from qmmlmm.sampling.slow_terms import correction_terms, fast_multiples
from qmmlmm.xtb import XTBPotential

BYTES_PER_COORDINATE = {"dcd": 4.0, "xtc": 1.4}
"""XTC: measured for a protein in water."""


def summary(given: RunInput, run: StagedRun) -> str:
    """Return the description of a run as lines of text.

    Parameters
    ----------
    given : RunInput
    run : StagedRun
        For what is done already.
    """
    lines = [*_system(given), *_stages(given, run), *_holds(given), *_costs(given), *_files(given)]
    return "\n".join(lines) + "\n"


def _row(name: str, text: str) -> str:
    return f"{name:<12} {text}"


def _system(given: RunInput) -> Iterator[str]:
    system = given.start.system
    box = "no box"
    if given.start.periodic:
        vectors = system.getDefaultPeriodicBoxVectors()
        edges = [vectors[k][k].value_in_unit(unit.nanometer) for k in range(3)]
        box = f"box of {edges[0] * edges[1] * edges[2]:.1f} nm^3"
    yield _row("system", f"{system.getNumParticles():,} particles, {box}")
    if not isinstance(given.system, MixedSystem):
        yield _row("terms", "none: the force field only")
        return
    described = given.system.describe()
    for region in described["regions"]:
        yield _row(
            "region",
            f"{region['name']}: {len(region['atoms'])} atoms, charge {signed(region['charge'])}, multiplicity "
            f"{region['multiplicity']}",
        )
        cuts = [f"{bond['region_atom']} - {bond['outside_atom']}" for bond in region["link_bonds"]]
        if cuts:
            yield _row("", f"{len(cuts)} cut bonds: {listed(cuts, 20)}")
    for name, mixed in given.system.terms.items():
        term = mixed.term
        yield _row("term", f"{name}: {_level(term.potential)}, {term.embedding}, coefficient {term.coefficient}")


def _level(potential: RegionPotential) -> str:
    """Return a potential with the settings that are not the defaults."""
    if isinstance(potential, EmbeddedPotential):
        response = potential.response
        return f"{_level(potential.base)}, response: {type(response).__name__} ({response.fingerprint()})"
    if not isinstance(potential, PySCFPotential | XTBPotential):
        return repr(potential)
    named = ("method", "basis")
    others = [
        f"{field.name} = {vars(potential)[field.name]!r}"
        for field in fields(potential)
        if field.name not in named and vars(potential)[field.name] != field.default
    ]
    return ", ".join([potential.method_name, *others])


def _stages(given: RunInput, run: StagedRun) -> Iterator[str]:
    settings = given.minimise
    if settings is not None:
        only = ", force field only" if settings.force_field_only else ""
        yield _row("minimise", f"{settings.iterations} iterations{only}{_done(run.minimised(), settings.iterations)}")
    dynamics = given.dynamics
    for stage in given.stages:
        inner = f" ({stage.inner_steps} x {1000.0 * stage.step / stage.inner_steps:g} fs)" * (stage.inner_steps > 1)
        start = "" if stage.start is None else f"{stage.start:g} to "
        where = "constant volume" if stage.pressure is None else f"{stage.pressure:g} bar"
        only = "" if stage.system is given.system else ", force field only"
        yield _row(
            stage.name,
            f"{stage.steps:,} steps of {1000.0 * stage.step:g} fs{inner} = {stage.steps * stage.step:g} ps, "
            f"{start}{dynamics.temperature:g} K, {where}{only}{_done(run.progress(stage), stage.steps)}",
        )


def _done(done: int, total: int) -> str:
    return "" if not done else ", done" if done >= total else f", at {done:,}"


def _holds(given: RunInput) -> Iterator[str]:
    for hold in given.holds:
        yield _row("hold", f"{hold.text}: {', '.join(hold.stages)}")
    moving = [stage for stage in given.stages if stage.pressure is not None]
    if any(hold.strength.startswith("hold") and stage.name in hold.stages for hold in given.holds for stage in moving):
        yield _row("", "note: places of held atoms do not move with the box at constant pressure")


def _costs(given: RunInput) -> Iterator[str]:
    """Yield how often each term is computed."""
    mixed = given.system
    if not isinstance(mixed, MixedSystem):
        return
    counts = dict.fromkeys(mixed.terms, 0)
    slow: tuple[str, ...] = ()
    if given.dynamics.multiple:
        slow = correction_terms(mixed.hamiltonian)
    not_evaluated = set(fast_multiples(mixed, slow)) if slow else set()
    for name in counts:
        for stage in given.stages:
            if stage.system is mixed and name not in not_evaluated:
                counts[name] += stage.steps * (1 if name in slow else stage.inner_steps)
    found = [f"{name} {count:,}" for name, count in counts.items() if count]
    yield _row("evaluations", f"{'; '.join(found)} (without minimisation)")


def _files(given: RunInput) -> Iterator[str]:
    output, production = given.output, given.production
    frames = production.steps // output.trajectory.in_steps(production.step)
    size = frames * 3 * given.start.system.getNumParticles() * BYTES_PER_COORDINATE[output.format] / 1e6
    yield _row("files", f"{given.directory}: production has {frames:,} frames, approximately {size:,.0f} MB")
