"""Files of networks that can be trained further, with all that makes up a network besides its weights."""

from __future__ import annotations

import io
import os
from dataclasses import asdict
from pathlib import Path

import torch

from qmmlmm.errors import PotentialError
from qmmlmm.ml.ml_potential import MLPotential
from qmmlmm.ml.response_network import ResponseNetwork, ResponseSettings
from qmmlmm.sampling.checkpoint import replace_file
from qmmlmm.units import ANGSTROM_IN_BOHR

NETWORK_VERSION = 4
TENSOR_WEIGHTS = ("tensor", "near_tensor")
"""Of the features of second rank, which files before version 3 do not have."""
FIRST_STEEPNESS = 1.5 / ANGSTROM_IN_BOHR
"""Of all pairs of the fitted polynomial in files of version 1."""


def save_network(model: ResponseNetwork, path: str | os.PathLike[str]) -> None:
    """Write a network as a whole or not at all.

    Parameters
    ----------
    model : ResponseNetwork
    path : path
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "version": NETWORK_VERSION,
            "atomic_numbers": list(model.atomic_numbers),
            "bonds": [list(bond) for bond in model.bonds],
            "settings": asdict(model.settings),
            "conditions": [list(condition) for condition in model.known_conditions()],
            "members": model.members,
            "weights": model.state_dict(),
        },
        buffer,
    )
    replace_file(Path(path), buffer.getvalue())


def load_network(path: str | os.PathLike[str]) -> ResponseNetwork:
    """Return the network that `save_network` wrote, in evaluation mode. No code in the file is run.

    Parameters
    ----------
    path : path

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PotentialError
        If it is damaged or something else.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no network file {str(source)!r}; the working directory is {os.getcwd()!r}")
    try:
        content = torch.load(source, weights_only=True)
        version = content["version"]
    except Exception as error:
        raise PotentialError(f"{str(source)!r} is no network file, or is damaged: {error}") from error
    if version not in range(1, NETWORK_VERSION + 1):
        raise PotentialError(f"{str(source)!r} has the format {version}, this version reads 1 to {NETWORK_VERSION}")
    # The first versions had no features of second rank.
    settings = ResponseSettings(**({"tensor_features": 0} | content["settings"]))
    with torch.random.fork_rng(devices=[]):
        model = ResponseNetwork(
            content["atomic_numbers"],
            [(a, b) for a, b in content["bonds"]],
            settings,
            [(c, m, s) for c, m, s in content["conditions"]],
            content["members"],
        )
    weights = content["weights"]
    if version < 4:
        # Their scale is that of the plain spread.
        weights = {**weights, "separate_parts": torch.zeros_like(model.separate_parts)}
    if version < 3:
        unused = {key: value for key, value in model.state_dict().items() if key.startswith(TENSOR_WEIGHTS)}
        weights = {**unused, **weights}
    if version == 1:
        weights = {**weights, "bonded.steepness": torch.full_like(model.bonded.steepness, FIRST_STEEPNESS)}
    model.load_state_dict(weights)
    return model.eval()


def region_potential(model: ResponseNetwork) -> MLPotential:
    """Return a trained network as the potential of its region.

    Parameters
    ----------
    model : ResponseNetwork
        Answers to the charges, multiplicities and electronic states of its training alone; `MLPotential.load` takes
        the state.
    """
    conditions = model.known_conditions()
    return MLPotential(
        model,
        atomic_numbers=model.atomic_numbers,
        embeddings=["electrostatic", "mechanical"] if model.response else ["mechanical"],
        conditions=conditions,
        state=min(state for _, _, state in conditions),
    )
