"""Layers that hold the weights of all members of a committee, so that one call evaluates them together."""

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


def two_layers(members: int, width_in: int, width_out: int, dtype: torch.dtype) -> torch.nn.Sequential:
    """Return a linear layer, SiLU and another linear layer."""
    return torch.nn.Sequential(
        MemberLinear(members, width_in, width_in, dtype),
        torch.nn.SiLU(),
        MemberLinear(members, width_in, width_out, dtype),
    )
