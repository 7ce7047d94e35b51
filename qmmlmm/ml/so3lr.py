"""SO3LR, a pretrained potential with charges, from the package so3krates-torch."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qmmlmm.coupling.level_of_theory import LevelOfTheory
from qmmlmm.coupling.potential import Capabilities, RegionSpecification
from qmmlmm.embedding.module_evaluator import ModuleEvaluator
from qmmlmm.errors import MissingDependencyError, PotentialError, listed
from qmmlmm.ml.charged_model import ChargedModel, Module
from qmmlmm.setting_checks import check_flag
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_EV

ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17)
"""Atomic numbers of the training set. The model has numbers for all others too, which nothing ever determined."""

LONG_RANGE_CUTOFF = 12.0
"""Distance at which the model's electrostatics and dispersion between its atoms end, angstrom."""

DAMPING = 2.0
"""Width in which its dispersion goes to zero before that, angstrom. Both are those of the model's own calculator."""

PACKAGE = "so3krates_torch"
WEIGHTS = Path("pretrained", "so3lr", "so3lr.model")


@dataclass(frozen=True)
class SO3LRPotential(ChargedModel):
    """SO3LR: a pretrained potential of molecules of H, C, N, O, F, P, S and Cl, with charges.

    It is computed in double precision on the CPU. With `EmbeddedPotential(SO3LRPotential(trust_code=True),
    ModelCharges())` its charges feel the surroundings; by itself it has mechanical embedding.

    Parameters
    ----------
    trust_code : bool
        Whether the file of the weights, which is in the package so3krates-torch, may be read. It is a pickle, and code
        in a pickle runs when it is read.

    Raises
    ------
    PotentialError
        If the weights are not trusted, or not in the package.
    MissingDependencyError
        If the package is not installed.

    Notes
    -----
    The level of its training is PBE0 with many-body dispersion. Energies are not absolute ones of that level: their
    difference is a constant for each kind of atom. It was trained for singlets. Electrostatics and dispersion between
    its atoms end at 12 angstrom.

    Source: Kabylda et al., J. Am. Chem. Soc. (2025), doi 10.1021/jacs.5c09558.
    """

    trust_code: bool = False
    level = "ML"

    def __post_init__(self) -> None:
        check_flag("trust_code", self.trust_code, PotentialError)
        if not self.trust_code:
            raise PotentialError(
                "the weights of SO3LR in the package so3krates-torch are a pickle, and code in a pickle runs when it "
                "is read; if you trust the package, write SO3LRPotential(trust_code=True), or trust_code = true in an "
                "input file"
            )
        _weights_file()

    @property
    def method_name(self) -> str:
        """``"SO3LR"``."""
        return "SO3LR"

    @property
    def level_of_theory(self) -> LevelOfTheory:
        """The model, by a hash of its file."""
        return LevelOfTheory(self.method_name, {"fingerprint": _fingerprint()})

    @property
    def capabilities(self) -> Capabilities:
        """Mechanical embedding."""
        return Capabilities(frozenset({"mechanical"}))

    def check(self, specification: RegionSpecification) -> None:
        """Raise PotentialError if the model does not know an element, or was not trained for such electrons."""
        where, numbers = f"term {specification.name!r}:", [int(z) for z in specification.atomic_numbers]
        unknown = sorted(set(numbers) - set(ELEMENTS))
        if unknown:
            raise PotentialError(
                f"{where} SO3LR does not know the elements with atomic numbers {listed(unknown)}; it was trained for "
                f"{listed(ELEMENTS, len(ELEMENTS))}"
            )
        if specification.multiplicity != 1 or (sum(numbers) - specification.charge) % 2:
            raise PotentialError(
                f"{where} SO3LR was trained for singlets, and the region has the multiplicity "
                f"{specification.multiplicity} and {sum(numbers) - specification.charge} electrons"
            )

    def charged_module(self) -> Module:
        """Return the model, see `ChargedModel.charged_module`. It reads the weights once in a process."""
        return _model()

    def create_evaluator(self, specification: RegionSpecification) -> ModuleEvaluator:
        """Return a fresh evaluator for one region.

        Raises
        ------
        PotentialError
            As `check`.
        MissingDependencyError
            If the package is not installed.
        """
        self.check(specification)
        return ModuleEvaluator(specification, self.charged_module())


class _SO3LR:
    """The model in the form ``forward(inputs)``, in atomic units."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # It keeps the graph of a call in attributes.
        self._lock = threading.Lock()

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        positions, numbers = inputs["positions"] / ANGSTROM_IN_BOHR, inputs["atomic_numbers"]
        n, charge = len(numbers), inputs["charge"]
        near, far = _pairs(positions, self._model.r_max), _pairs(positions, LONG_RANGE_CUTOFF)
        data = {
            "positions": positions,
            "edge_index": near,
            "shifts": positions.new_zeros(near.shape[1], 3),
            "edge_index_lr": far,
            "shifts_lr": positions.new_zeros(far.shape[1], 3),
            "cell": positions.new_zeros(3, 3),
            "node_attrs": torch.nn.functional.one_hot(numbers - 1, self._model.num_elements).to(positions.dtype),
            "atomic_numbers": numbers,
            "batch": torch.zeros_like(numbers),
            "ptr": torch.tensor([0, n]),
            "head": torch.zeros(1, dtype=torch.int64),
            "total_charge": charge.reshape(1),
            "total_spin": 0.5 * (inputs["multiplicity"].reshape(1) - 1.0),
        }
        with self._lock:
            result = self._model(data, compute_force=False)
        charges = result["partial_charges"]
        # The model divides the rest by n in single precision.
        charges = charges + (charge - charges.sum()) / n
        return {"energy": result["energy"].sum() / HARTREE_IN_EV, "charges": charges}


def _pairs(positions: Tensor, cutoff: float) -> Tensor:
    """Return the ordered pairs of different atoms within a distance, (2, p)."""
    with torch.no_grad():
        distances = torch.cdist(positions, positions)
        distances.fill_diagonal_(torch.inf)
        return (distances <= cutoff).nonzero().T


def _weights_file() -> Path:
    """Return the file of the weights, without importing the package."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise MissingDependencyError("SO3LR needs the package so3krates-torch: pip install so3krates-torch")
    path = Path(package.submodule_search_locations[0]) / WEIGHTS
    if not path.is_file():
        raise PotentialError(
            f"the package so3krates-torch has no file {str(WEIGHTS)!r}; install version 0.2.1 or later"
        )
    return path


@functools.cache
def _fingerprint() -> str:
    return hashlib.sha256(_weights_file().read_bytes()).hexdigest()[:16]


@functools.cache
def _model() -> _SO3LR:
    path = _weights_file()
    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
    except ImportError as error:
        raise MissingDependencyError(
            f"SO3LR needs the packages of so3krates-torch: {error}; pip install so3krates-torch"
        ) from error
    # What a pickle of another version raises, nobody knows.
    except Exception as error:
        raise PotentialError(
            f"{str(path)!r} cannot be read by torch {torch.__version__}: {type(error).__name__}: {error}"
        ) from error
    model = model.double().eval().requires_grad_(False)
    model.r_max_lr, model.dispersion_energy_cutoff_lr_damping = LONG_RANGE_CUTOFF, DAMPING
    return _SO3LR(model)
