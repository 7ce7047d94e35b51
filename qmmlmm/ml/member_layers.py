"""Layers with the weights of all members of a committee, which one call evaluates together."""

import math

import torch
from torch import Tensor


class MemberLinear(torch.nn.Module):
    """A linear layer for each member.

    Parameters
    ----------
    members, width_in, width_out : int
    dtype : torch.dtype
    bias : bool
    """

    def __init__(self, members: int, width_in: int, width_out: int, dtype: torch.dtype, bias: bool = True) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(max(width_in, 1))
        self.width_out = width_out
        self.weight = torch.nn.Parameter((torch.rand(members, width_in, width_out, dtype=dtype) * 2.0 - 1.0) * bound)
        start = (torch.rand(members, 1, width_out, dtype=dtype) * 2.0 - 1.0) * bound if bias else None
        self.bias = torch.nn.Parameter(start) if start is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (members, ..., width_out) of (members, ..., width_in)."""
        shape = list(x.shape)
        shape[-1] = self.width_out
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        bias = self.bias
        out = torch.bmm(flat, self.weight) if bias is None else torch.baddbmm(bias, flat, self.weight)
        return out.reshape(shape)


class PairFilter(torch.nn.Module):
    """Sums over neighbours, with separate weights for each member.

    Parameters
    ----------
    members, radial_functions, width : int
    dtype : torch.dtype

    Notes
    -----
    This is one matrix product, for all members together if they share the basis: no tensor has two atoms and a feature
    as dimensions.
    """

    def __init__(self, members: int, radial_functions: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(radial_functions)
        self.members = members
        self.weight = torch.nn.Parameter(
            (torch.rand(members, radial_functions, width, dtype=dtype) * 2.0 - 1.0) * bound
        )

    def forward(self, basis: Tensor, sent: Tensor) -> Tensor:
        """Return the sum over neighbours j and radial functions p of basis_(row)(jp) weight_pf sent_jcf.

        Parameters
        ----------
        basis : (members or 1, batch, rows, n * p) tensor
        sent : (members, batch, n, c, f) tensor

        Returns
        -------
        (members, batch, rows, c, f) tensor
        """
        groups, batch, rows, inner = basis.shape
        copies = self.members // groups
        n, c, f = sent.shape[2], sent.shape[3], sent.shape[4]
        p = self.weight.shape[1]
        values = sent.reshape(groups, copies, batch, n, 1, c, f).permute(0, 2, 3, 4, 1, 5, 6)
        factors = self.weight.reshape(groups, copies, 1, 1, p, 1, f).permute(0, 2, 3, 4, 1, 5, 6)
        if copies > 1:
            values = values.contiguous()
        right = (values * factors).reshape(groups * batch, inner, copies * c * f)
        out = torch.bmm(basis.reshape(groups * batch, rows, inner), right)
        return (
            out.reshape(groups, batch, rows, copies, c, f)
            .permute(0, 3, 1, 2, 4, 5)
            .reshape(self.members, batch, rows, c, f)
        )


def two_layers(members: int, width_in: int, width_out: int, dtype: torch.dtype) -> torch.nn.Sequential:
    """Return a linear layer, SiLU and another linear layer."""
    return torch.nn.Sequential(
        MemberLinear(members, width_in, width_in, dtype),
        torch.nn.SiLU(),
        MemberLinear(members, width_in, width_out, dtype),
    )
