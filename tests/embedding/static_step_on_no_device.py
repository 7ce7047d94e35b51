"""Run a static step on a device that has no numbers, and print what it asked the host for.

Tensors of FakeTensorMode have shapes and no values: each question for a value, and each shape that depends on values,
is an error. The device "npy" is torch's hook for accelerators written in Python; on a fake CUDA device autograd ends
the process. Started as a program, because a process can set up such a device only once.

    python static_step_on_no_device.py npy|cpu [plant] [names] [mechanical]

With "cpu" the tensors are real, and only operations that are known to ask are seen. With "plant" the step asks for a
value, to show that this is seen; with "names" the operations are printed; with "mechanical" there are no surroundings.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qmmlmm.coupling.layout import Surroundings, TermLayout
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.embedding.static_field import Capacity
from qmmlmm.embedding.static_step import AnyStaticStep, MechanicalStaticStep, StaticStep
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.static_network import StaticNetwork

DEVICE = sys.argv[1]
# Operations that ask the host inside, where no fake tensor sees it; the shapes of the last ones depend on values.
ASK_INSIDE = (
    "linalg_inv",
    "linalg_solve",
    "_linalg_solve",
    "_linalg_check",
    "linalg_det",
    "_linalg_det",
    "linalg_lu",
    "linalg_cholesky",
    "linalg_eig",
    "linalg_svd",
    "masked_select",
    "unique",
    "bincount",
    "repeat_interleave",
    "nonzero",
    "_local_scalar_dense",
    "equal.default",
    "is_nonzero",
    "histc",
)
VIEWS = (
    "view", "_unsafe_view", "_reshape_alias", "view_as", "unsqueeze", "squeeze", "slice", "select", "expand", "permute",
    "transpose", "t", "detach", "alias", "unbind", "split", "split_with_sizes", "as_strided", "narrow", "lift_fresh",
    "unfold", "diagonal", "_conj", "view_as_real", "view_as_complex",
)  # fmt: skip


class Watch(TorchDispatchMode):
    """Counts operations, and keeps those that ask the host or have a result on another device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        name = str(func)
        if name.startswith("aten."):  # others only ask a tensor about itself
            self.calls[name.split(".")[1]] += 1
        if any(f"aten.{word}" in name for word in ASK_INSIDE):
            self.faults[f"asks the host: {name}"] += 1
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != DEVICE:
                self.faults[f"its result is on the {tensor.device.type}: {name}"] += 1
        return found


def layout_of_ten_atoms() -> TermLayout:
    """A region of ten atoms with a cut bond in a box."""
    n, region, n_atoms = 300, 10, 9
    rng = np.random.default_rng(1)
    charges = np.append(rng.uniform(-0.8, 0.8, n), [0.1, -0.1])
    return TermLayout(
        specification=RegionSpecification("site/ML", np.array([6] * n_atoms + [1]), 0, 1),
        coefficient=1.0,
        n_particles=n,
        atoms=np.arange(n_atoms),
        anchor=0,
        link_bonds=np.array([[n_atoms - 1, region]]),
        link_ratios=np.array([0.71]),
        link_distances=np.array([0.0]),
        periodic=True,
        surroundings=Surroundings(
            source_charges=charges,
            derived_bonds=np.array([[region, region + 1], [region, region + 2]]),
            derived_fractions=np.array([0.5, 0.5]),
            reference_charges=np.where(np.arange(n) < n_atoms, charges[:n], 0.0),
            splitting=0.16,
            # 17 is transformed by a matrix, the others by an FFT.
            grid=(17, 20, 24),
            short_range_cutoff=17.0,
        ),
        bonds=np.array([[i, i + 1] for i in range(n_atoms - 1)]),
    )


def move(module: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Put tensors without values in the place of all tensors of a module."""
    for part in module.modules():
        for store in (part._parameters, part._buffers, vars(part)):
            for name, tensor in list(store.items()):
                if isinstance(tensor, torch.Tensor):
                    with mode:
                        store[name] = torch.empty_strided(
                            tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE
                        )


def main() -> None:
    """Print a JSON object: the operations that are not views, and the faults."""
    layout = layout_of_ten_atoms()
    torch.manual_seed(1)
    network = ResponseNetwork(layout.specification.atomic_numbers.tolist())
    step: AnyStaticStep = StaticStep(layout, StaticNetwork(network, layout.specification), Capacity(512, 256))
    if "mechanical" in sys.argv:
        alone = StaticNetwork(network, layout.specification, surrounded=False)
        step = MechanicalStaticStep(replace(layout, surroundings=None), alone)
    if "plant" in sys.argv:
        assert isinstance(step, StaticStep)
        original = step.field._find_near

        def asking(sites: torch.Tensor, sources: torch.Tensor, box: torch.Tensor | None) -> Any:
            if bool(torch.isfinite(sites.sum())):
                sites = sites + 0.0
            return original(sites, sources, box)

        step.field._find_near = asking  # type: ignore[method-assign]
    positions = torch.rand(layout.n_particles, 3, dtype=torch.float64)
    box = 3.0 * torch.eye(3, dtype=torch.float64)
    mode: AbstractContextManager[object] = nullcontext()
    if DEVICE != "cpu":
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        _setup_privateuseone_for_python_backend(DEVICE)
        mode = fake = FakeTensorMode()
        move(step, fake)
        with fake:
            positions = torch.empty(positions.shape, dtype=torch.float64, device=DEVICE)
            box = torch.empty(3, 3, dtype=torch.float64, device=DEVICE)
    result: dict[str, object] = {}
    with mode:
        watch = Watch()
        try:
            with watch:
                step.set_box(box)
            watch.calls.clear()
            with watch:
                energy, forces, status = step(positions)
            result["shapes"] = [list(energy.shape), list(forces.shape), list(status.shape)]
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            watch.faults[f"stops: {type(error).__name__}: {error}"] += 1
    result["faults"] = dict(watch.faults)
    result["all"] = sum(watch.calls.values())
    result["operations"] = sum(count for name, count in watch.calls.items() if name not in VIEWS)
    if "names" in sys.argv:
        result["names"] = watch.calls.most_common()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
