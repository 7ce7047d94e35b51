"""Features of second rank, of the directions of an atom's neighbours."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import torch
from torch import Tensor

from qmmlmm.ml.member_layers import MemberLinear, PairFilter


class TensorFeatures(torch.nn.Module):
    """Symmetric, traceless tensors T_i = sum_j sum_p B_p(r_ij) w_p s_j (u_ij u_ij - 1/3) of each atom i.

    Parameters
    ----------
    members : int
        Number of members of a committee, each with its own weights.
    radial_functions : int
        Number of radial functions B_p.
    width : int
        Number of scalar features of an atom, of which the s_j are linear combinations.
    tensors : int
        Number of tensors of an atom.
    dtype : torch.dtype

    Notes
    -----
    At a site of symmetry C2v all vectors lie on its axis, and so do their products; T_i also distinguishes the two
    planes through the axis.
    """

    trace: Tensor
    upper: Tensor
    whole: Tensor

    def __init__(self, members: int, radial_functions: int, width: int, tensors: int, dtype: torch.dtype) -> None:
        super().__init__()
        # A symmetric tensor is stored as xx, yy, zz, xy, xz, yz.
        self.register_buffer("trace", torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], dtype=dtype), persistent=False)
        self.register_buffer("upper", torch.tensor([0, 4, 8, 1, 2, 5]), persistent=False)
        self.register_buffer("whole", torch.tensor([0, 3, 4, 3, 1, 5, 4, 5, 2]), persistent=False)
        self.sender = MemberLinear(members, width, tensors, dtype)
        self.filter = PairFilter(members, radial_functions, tensors, dtype)

    def basis(self, unit: Tensor, radial: Tensor) -> Tensor:
        """Return the basis of all pairs for `forward`, (..., 6 n, n p).

        Parameters
        ----------
        unit, radial : (..., n, n, 3) and (..., n, n, p) tensors
            Directions and radial functions of all pairs.
        """
        second = (unit.unsqueeze(-1) * unit.unsqueeze(-2)).flatten(-2).index_select(-1, self.upper)
        second = second - self.trace / 3.0
        return (second.transpose(-1, -2).unsqueeze(-1) * radial.unsqueeze(-3)).flatten(-2).flatten(-3, -2)

    def forward(self, basis: Tensor, s: Tensor) -> Tensor:
        """Return the tensors as matrices, (members, batch, n, 3, 3, t).

        Parameters
        ----------
        basis : (members or 1, batch, 6 n, n p) tensor
        s : (members, batch, n, width) tensor
        """
        found = self.filter(basis, self.sender(s).unsqueeze(-2))
        found = found.reshape(s.shape[0], s.shape[1], s.shape[2], 6, found.shape[-1])
        return found.index_select(-2, self.whole).unflatten(-2, [3, 3])
