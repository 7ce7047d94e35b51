"""Tully's three models: one particle in one dimension on two surfaces, and the exact answer.

Source: Tully, J. Chem. Phys. 93, 1061 (1990). Atomic units here; mass 2000 electron masses.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app

from qmmlmm.nonadiabatic import SurfaceHopping, SurfacePoint, VelocityVerletIntegrator
from qmmlmm.units import (
    ATOMIC_TIME_IN_PS,
    BOHR_IN_NM,
    ELECTRON_MASS_IN_DALTON,
    HARTREE_IN_KJ_PER_MOL,
)

MASS = 2000.0
SPEED_IN_OPENMM = BOHR_IN_NM / ATOMIC_TIME_IN_PS
START, END = -10.0, 10.0  # bohr


@dataclass(frozen=True)
class Model:
    """Diabatic matrix elements as Lepton expressions of x in bohr; Python reads them too."""

    name: str
    first: str
    second: str
    coupling: str

    def values(self, x):
        functions = _functions(self, "math" if isinstance(x, float) else "numpy")
        return tuple(function(x) + 0.0 * x for function in functions)

    def slopes(self, x, step=1e-4):
        return tuple((a - b) / (2 * step) for a, b in zip(self.values(x + step), self.values(x - step), strict=True))

    def angle(self, x):
        """Twice the angle that turns diabatic states into adiabatic ones."""
        first, second, coupling = self.values(x)
        return np.arctan2(coupling, 0.5 * (second - first))

    def adiabatic(self, x):
        first, second, coupling = self.values(x)
        root = np.hypot(0.5 * (second - first), coupling)
        return 0.5 * (first + second) - root, 0.5 * (first + second) + root


@functools.cache
def _functions(model: Model, library: str):
    names = {"exp": math.exp, "abs": abs, "step": lambda y: float(y >= 0)}
    if library == "numpy":
        names = {"exp": np.exp, "abs": np.abs, "step": lambda y: np.where(y >= 0, 1.0, 0.0)}
    texts = (model.first, model.second, model.coupling)
    return [eval(f"lambda x: {text.replace('^', '**')}", names) for text in texts]


SIMPLE = Model(
    "simple avoided crossing",
    "0.01*(2*step(x)-1)*(1-exp(-1.6*abs(x)))",
    "-0.01*(2*step(x)-1)*(1-exp(-1.6*abs(x)))",
    "0.005*exp(-x^2)",
)
DUAL = Model("dual avoided crossing", "0", "0.05-0.1*exp(-0.28*x^2)", "0.015*exp(-0.06*x^2)")
EXTENDED = Model("extended coupling", "0.0006", "-0.0006", "0.1*(step(x)*2+(1-2*step(x))*exp(-0.9*abs(x)))")
MODELS = (SIMPLE, DUAL, EXTENDED)


class ModelSurfaces:
    """A model's two adiabatic states, moving the one particle of a System."""

    n_states = 2
    atoms = np.array([0])

    def __init__(self, model: Model, with_couplings: bool = False) -> None:
        self.model = model
        self._with_couplings = with_couplings
        self._last: float | None = None

    def system(self) -> openmm.System:
        first, second, coupling = (
            "(" + text.replace("exp", "EXP").replace("x", "y").replace("EXP", "exp") + ")"
            for text in (self.model.first, self.model.second, self.model.coupling)
        )
        force = openmm.CustomExternalForce(
            f"{HARTREE_IN_KJ_PER_MOL!r}*(0.5*(f+g)+(2*state-1)*sqrt(0.25*(f-g)^2+c^2));"
            f"f={first}; g={second}; c={coupling}; y=x/{BOHR_IN_NM!r}"
        )
        force.addGlobalParameter("state", 0)
        force.addParticle(0)
        system = openmm.System()
        system.addParticle(MASS * ELECTRON_MASS_IN_DALTON)
        system.addForce(force)
        return system

    def select(self, context, state):
        context.setParameter("state", state)

    def observe(self, context):
        x = context.getState(positions=True).getPositions(asNumpy=True)._value[0, 0] / BOHR_IN_NM
        x, angle = float(x), float(self.model.angle(float(x)))
        half = None if self._last is None else 0.5 * (angle - self._last)
        self._last = angle
        overlaps = None if half is None else np.array([[np.cos(half), np.sin(half)], [-np.sin(half), np.cos(half)]])
        couplings = None
        if self._with_couplings:
            couplings = np.zeros((2, 2, 1, 3))
            couplings[0, 1, 0, 0] = 0.5 * self._turning(x) / BOHR_IN_NM
            couplings[1, 0] = -couplings[0, 1]
        return SurfacePoint(np.array(self.model.adiabatic(x)) * HARTREE_IN_KJ_PER_MOL, overlaps, couplings)

    def memory(self):
        return {} if self._last is None else {"angle": np.array(self._last)}

    def recall(self, memory):
        self._last = float(memory["angle"]) if memory else None

    def _turning(self, x):
        first, second, coupling = self.model.values(x)
        slope_first, slope_second, slope_coupling = self.model.slopes(x)
        half, slope = 0.5 * (second - first), 0.5 * (slope_second - slope_first)
        return (half * slope_coupling - coupling * slope) / (half**2 + coupling**2)


def simulation_of(surfaces: ModelSurfaces, step_size: float) -> app.Simulation:
    """Return a Simulation with a step in ps."""
    topology = app.Topology()
    topology.addAtom("X", None, topology.addResidue("X", topology.addChain()))
    platform = openmm.Platform.getPlatform("Reference")
    return app.Simulation(topology, surfaces.system(), VelocityVerletIntegrator(step_size), platform)


@dataclass(frozen=True)
class Packet:
    """A Gaussian packet of width 20/k on the lower state, exp(ikx - (x - start)^2 k^2/400)."""

    k: float
    start: float = START

    @property
    def width(self):
        return 20.0 / self.k

    def draw(self, random):
        """Position and momentum from its Wigner distribution."""
        return random.normal(self.start, 0.5 * self.width), random.normal(self.k, 1.0 / self.width)


def surface_hopping(model, packet, n_trajectories, seed=0, resolution=0.1, chunk=20, with_couplings=False, **settings):
    """Return the shares reflected on states 0 and 1 and transmitted on states 0 and 1.

    The step is that in which the packet moves by `resolution` bohr.
    """
    random = np.random.default_rng(seed)
    step = resolution * MASS / packet.k * ATOMIC_TIME_IN_PS
    surfaces = ModelSurfaces(model, with_couplings)
    simulation = simulation_of(surfaces, step)
    hopping = SurfaceHopping(simulation, surfaces, 0, **settings)
    counts = np.zeros((2, 2))
    for trajectory in range(n_trajectories):
        x, p = packet.draw(random)
        hopping.reset(0, seed=1_000_000 * seed + trajectory)
        simulation.context.setPositions([[x * BOHR_IN_NM, 0, 0]])
        simulation.context.setVelocities([[p / MASS * SPEED_IN_OPENMM, 0, 0]])
        limit = max(END, abs(x) + 0.5)
        for _ in range(10000):
            hopping.step(chunk)
            state = simulation.context.getState(positions=True, velocities=True)
            x = state.getPositions(asNumpy=True)._value[0, 0] / BOHR_IN_NM
            v = state.getVelocities(asNumpy=True)._value[0, 0]
            if abs(x) > (limit if x < 0 else END) and x * v > 0:
                break
        else:
            raise RuntimeError("a trajectory did not leave")
        counts[int(x > 0), hopping.state] += 1
    return counts / n_trajectories


def exact(model, packet, time_step=2.0):
    """Return what `surface_hopping` approximates, from the split-operator method; (2, 2): side, state."""
    n = 4096
    x = np.linspace(-80.0, 80.0, n, endpoint=False)
    momenta = 2 * np.pi * np.fft.fftfreq(n, x[1] - x[0])
    kinetic = np.exp(-0.5j * momenta**2 / MASS * time_step)
    angle, (lower, upper) = model.angle(x), model.adiabatic(x)
    c, s = np.cos(0.5 * angle), np.sin(0.5 * angle)
    # Columns are the adiabatic states in the diabatic ones.
    vectors = np.array([[c, s], [-s, c]])
    phases = np.exp(-0.5j * np.array([lower, upper]) * time_step)
    potential = np.einsum("iax,ax,jax->ijx", vectors, phases, vectors)
    packet_values = np.exp(1j * packet.k * x - (x - packet.start) ** 2 / packet.width**2)
    psi = vectors[:, 0] * packet_values
    psi /= np.sqrt((abs(psi) ** 2).sum())
    for step in range(40000):
        psi = np.einsum("ijx,jx->ix", potential, psi)
        psi = np.fft.ifft(kinetic * np.fft.fft(psi))
        psi = np.einsum("ijx,jx->ix", potential, psi)
        if step % 100 == 0:
            density = (abs(psi) ** 2).sum(axis=0)
            inside = density[(x > -8.0) & (x < 8.0)].sum()
            if step > 1.2 * abs(packet.start) * MASS / packet.k / time_step and inside < 1e-4:
                break
            if density[abs(x) > 70.0].sum() > 1e-5:
                break
    adiabatic = abs(np.einsum("iax,ix->ax", vectors, psi)) ** 2
    return np.array([adiabatic[:, x < 0].sum(axis=1), adiabatic[:, x >= 0].sum(axis=1)])
