"""What compilation of networks and of the mesh gains: ratios within one run, medians and quartiles, one thread.

    python tests/benchmarks/compiled_network.py [--sizes 10 25] [--rounds 60] [--json FILE]
    python tests/benchmarks/compiled_network.py --system [--rounds 25]

Everything is compiled into a folder that is deleted at the end, which takes a minute for each network. The first form
evaluates networks of the default size, with random weights, for lumps of atoms among charges: the list of operations
alone, and the model with near charges as a term calls it. The second form evaluates all forces of T4 lysozyme with
p-xylene, 23,817 atoms, and compares with mechanical embedding without compiled parts.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from model_speed import DIFFERENTIATED, case
from record import Table, add_option, print_tables, quartiles, write_record

from qmmlmm.embedding import mesh_kernel
from qmmlmm.ml.compiled_network import AGREEMENT, compile_network, compiled_module
from qmmlmm.ml.recorded_network import RecordedNetwork
from qmmlmm.ml.response_network import ResponseNetwork

Calls = dict[str, Callable[[], object]]


def measure(calls: Calls, rounds: int) -> dict[str, np.ndarray]:
    """Return the processor times, ms, of calls in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-4, rounds):  # the first ones warm up
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn >= 0:
                seconds[name].append(1000.0 * (time.process_time() - start))
    return {name: np.array(values) for name, values in seconds.items()}


def networks(sizes: list[int], rounds: int) -> Table:
    """Return a row for each number of atoms."""
    rows = []
    for n in sizes:
        numbers, inputs = case(n, np.random.default_rng(n))
        torch.manual_seed(1)
        network = ResponseNetwork(numbers, [(k, k + 1) for k in range(n - 1)]).eval()
        start = sum(os.times()[:4])  # with those of the compiler
        compile_network(network, "surrounded")
        seconds = sum(os.times()[:4]) - start
        part = compiled_module(network, "surrounded")
        assert part is not None
        models = [RecordedNetwork(network, ["surrounded"], found).eval() for found in (None, {"surrounded": part})]
        kept = network.near.select(inputs["positions"], inputs["near_positions"])
        near, charges = inputs["near_positions"][kept], inputs["near_charges"][kept]
        moments = network.near(inputs["positions"], near, charges)
        given = (torch.zeros(1, dtype=torch.int64), *(inputs[key] for key in DIFFERENTIATED[:3]), moments)
        leaves = [inputs[key].requires_grad_(True) for key in DIFFERENTIATED]
        calls: Calls = {}
        for name, model in zip(("recorded", "compiled"), models, strict=True):
            listed, whole = torch.jit.script(model.surrounded), torch.jit.script(model)
            calls[name] = functools.partial(_without_graph, listed, given)
            calls[f"{name} model"] = functools.partial(_gradient, whole, inputs, leaves)
        results = [_without_graph(model.surrounded, given) for model in models]
        worst = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(*results, strict=True))
        found = measure(calls, rounds)
        ratios = [found[one] / found[other] for one, other in (
            ("recorded", "compiled"), ("recorded model", "compiled model"),
        )]  # fmt: skip
        times = [quartiles(found[name]) for name in ("recorded", "compiled", "recorded model", "compiled model")]
        of_list, of_model = map(quartiles, ratios)
        rows.append((n, *times[:2], of_list, *times[2:], of_model, round(seconds), worst))
        print(*rows[-1], flush=True)
        assert worst < AGREEMENT[torch.float32]
    columns = (
        "atoms",
        "operations of the network, ms",
        "compiled",
        "ratio",
        "model with near charges, ms",
        "compiled",
        "ratio",
        "compilation, s",
        "largest relative difference",
    )
    return Table("", columns, tuple(rows))


def _without_graph(call: Callable[..., object], given: tuple[torch.Tensor, ...]) -> object:
    with torch.no_grad():
        return call(*given)


def _gradient(call: Callable[..., dict[str, torch.Tensor]], inputs: object, leaves: list[torch.Tensor]) -> object:
    return torch.autograd.grad([call(inputs)["energy"]], leaves)


def whole_system(rounds: int) -> Table:
    """Return a row for each kind of evaluation of all forces."""
    import openmm
    from openmm import unit

    from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system, select
    from systems.t4_lysozyme import build

    structure = build()
    positions = np.array(structure.positions.value_in_unit(unit.nanometer))
    ligand = Region("ligand", select(structure.topology, "resname LIG"))
    platform = openmm.Platform.getPlatform("CPU")
    contexts: dict[str, openmm.Context] = {}

    def add(label: str, embedding: str, precision: str = "double", compiled: bool = True) -> None:
        model = MLPotential.load(ROOT / "examples" / "models" / "p_xylene.pt")
        mixed = create_mixed_system(
            structure.topology,
            structure.system,
            Hamiltonian([Term(model, ligand, embedding=embedding)]),
            ml_precision=precision,
            ml_backend="auto" if compiled else "pythonforce",
            ml_compiled=compiled,
        )
        parts = mixed.describe()["terms"][0]["compiled"]
        print(label, {part: text if text == "yes" else "no" for part, text in parts.items()}, flush=True)
        contexts[label] = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), platform)

    add("mechanical", "mechanical", compiled=False)
    for precision in ("double", "mixed"):
        add(f"electrostatic, {precision}", "electrostatic", precision, compiled=False)
    mesh_kernel.compile_mesh_kernel()
    for precision in ("double", "mixed"):
        add(f"electrostatic, {precision}, mesh compiled", "electrostatic", precision)
    network = MLPotential.load(ROOT / "examples" / "models" / "p_xylene.pt").network
    assert network is not None
    compile_network(network, "surrounded")
    for precision in ("double", "mixed"):
        add(f"electrostatic, {precision}, mesh and network compiled", "electrostatic", precision)
    rng = np.random.default_rng(1)
    moved = [positions]

    def evaluation(context: openmm.Context) -> Callable[[], object]:
        def evaluate() -> object:
            context.setPositions(moved[0])
            return context.getState(forces=True)

        return evaluate

    seconds: dict[str, list[float]] = {label: [] for label in contexts}
    calls = {label: evaluation(context) for label, context in contexts.items()}
    for turn in range(-3, rounds):
        moved[0] = positions + 2e-4 * rng.standard_normal(positions.shape)
        for label, call in calls.items():
            start = time.process_time()
            call()
            if turn >= 0:
                seconds[label].append(1000.0 * (time.process_time() - start))
    rows = []
    for label, values in seconds.items():
        rows.append((label, quartiles(values), quartiles(np.array(values) / np.array(seconds["mechanical"]))))
    return Table("", ("evaluation of all forces", "ms", "times mechanical, in the same turn"), tuple(rows))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 25])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--system", action="store_true", help="all forces of 23,817 atoms")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QMMLMM_CACHE"] = folder
        mesh_kernel.unavailable_because.cache_clear()
        table = whole_system(options.rounds) if options.system else networks(options.sizes, options.rounds)
    print_tables([table])
    where = "23,817 atoms" if options.system else "Networks of the default size in single precision"
    write_record(options.json, [table], f"{where}; processor time of one thread, medians with quartiles.")


if __name__ == "__main__":
    main()
