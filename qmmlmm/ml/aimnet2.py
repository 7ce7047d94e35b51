"""AIMNet2, a pretrained potential with charges, from its files of TorchScript."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import os
from collections.abc import Iterable
from typing import Dict  # noqa: UP035  (TorchScript reads it)

import torch
from torch import Tensor
from torch.export import ExportedProgram

from qmmlmm.errors import PotentialError
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.own_module import read_own_module
from qmmlmm.setting_checks import check_flag, check_path
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_EV

ELEMENTS = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "As", "Se", "Br", "I")
"""Elements of the published models."""

WATER = ((0.0, 0.0, 0.0), (1.81, 0.0, 0.0), (-0.45, 1.75, 0.0))
"""Positions for the trial of a file, bohr."""

NEUTRAL = 1e-3
"""Largest sum of the charges of water by a model, e."""


def aimnet2_potential(
    file: str | os.PathLike[str],
    *,
    trust_code: bool = False,
    elements: Iterable[int | str] = ELEMENTS,
    multiplicity: int | None = 1,
) -> MLPotential:
    """Return an AIMNet2 model from its file, with mechanical embedding.

    With `EmbeddedPotential(aimnet2_potential(...), ModelCharges())` its charges feel the surroundings. The result is
    saved, pickled and serialised as any other `MLPotential`.

    Parameters
    ----------
    file : path
        File of TorchScript (``.jpt``), such as ``aimnet2_wb97m_0.jpt``.
    trust_code : bool
        Whether the code in the file may run.
    elements : iterable of int or str
        Atomic numbers or symbols of the model's elements.
    multiplicity : int or None
        Multiplicity of the model's training; None for AIMNet2-NSE, which takes it as an input.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PotentialError
        If it is not trusted, cannot be read, or is no AIMNet2 model.

    Notes
    -----
    The module takes ``coord`` (1, n, 3) angstrom, ``numbers`` (1, n), ``charge`` (1,) e and ``mult`` (1,), without
    lists of neighbours: it has all pairs. It returns ``energy`` (1,) eV and ``charges`` (1, n) e. Energy and charges
    are in the precision of the file, which is single for the published ones.

    Sources: Anstine, Zubatyuk, Isayev, doi 10.26434/chemrxiv-2023-296ch; https://github.com/isayevlab/AIMNet2.
    """
    check_flag("trust_code", trust_code, PotentialError)
    module = read_own_module(check_path("file", file, PotentialError), trust_code=trust_code)
    where = f"{os.fspath(file)!r} is no AIMNet2 model"
    if isinstance(module, ExportedProgram):
        raise PotentialError(f"{where}: it is a program of torch.export, and AIMNet2's files are TorchScript")
    adapted = _AIMNet2(module)
    fault = _fault(adapted)
    if fault:
        raise PotentialError(f"{where}: {fault}")
    return MLPotential(adapted, elements=elements, charge=None, multiplicity=multiplicity)


class _AIMNet2(torch.nn.Module):
    """Adapts a module of AIMNet2 to atomic units and the contract of `MLPotential`."""

    one: Tensor

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        dtypes = {tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()}
        self.register_buffer("one", torch.ones((), dtype=torch.float64 if dtypes == {torch.float64} else torch.float32))
        self.angstrom: float = ANGSTROM_IN_BOHR
        self.ev: float = HARTREE_IN_EV

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        kind = self.one.dtype
        data = {
            "coord": (inputs["positions"] / self.angstrom).to(kind).unsqueeze(0),
            "numbers": inputs["atomic_numbers"].unsqueeze(0),
            "charge": inputs["charge"].to(kind).reshape(1),
            "mult": inputs["multiplicity"].to(kind).reshape(1),
        }
        result = self.model(data)
        energy = result["energy"].to(torch.float64).sum() / self.ev
        return {"energy": energy, "charges": result["charges"].to(torch.float64).reshape(-1)}


def _fault(module: _AIMNet2) -> str:
    """Return what is wrong with the result of a module for water, or an empty text."""
    inputs = {
        "positions": torch.tensor(WATER, dtype=torch.float64, requires_grad=True),
        "atomic_numbers": torch.tensor([8, 1, 1]),
        "charge": torch.tensor(0.0, dtype=torch.float64),
        "multiplicity": torch.tensor(1.0, dtype=torch.float64),
    }
    try:
        with torch.enable_grad():
            result = module(inputs)
            energy, charges = result["energy"], result["charges"].detach()
    # What a module of another kind raises, nobody knows.
    except Exception as error:  # noqa: BLE001
        lines = str(error).strip().splitlines()
        return f"for water it raises {type(error).__name__}: {lines[-1] if lines else 'without a text'}"
    if not energy.requires_grad:
        return "its energy does not depend on the positions"
    if charges.shape != (3,):
        return f"it returns {len(charges)} charges for the three atoms of water"
    if abs(float(charges.sum())) > NEUTRAL:
        return f"the charges of water add up to {float(charges.sum()):.4f} e"
    return ""
