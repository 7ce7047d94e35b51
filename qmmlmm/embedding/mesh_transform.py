"""Fourier transforms of a mesh, by FFT or, for the sizes at which that is slow, by matrices. All is TorchScript."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import numpy as np
import torch
from torch import Tensor

DENSE_TRANSFORM = 256
"""Mesh sizes up to this one with a prime factor above 13 are transformed by a matrix, which is faster than an FFT."""


def _needs_matrix(size: int) -> bool:
    rest = size
    for factor in (2, 3, 5, 7, 11, 13):
        while rest % factor == 0:
            rest //= factor
    return rest > 1 and size <= DENSE_TRANSFORM


def _interleaved(matrix: np.ndarray) -> np.ndarray:
    """Return real and imaginary parts alternating along the last axis, as torch stores complex numbers."""
    return np.stack([matrix.real, matrix.imag], axis=-1).reshape(len(matrix), -1)


class MeshTransform(torch.nn.Module):
    """Transform of a real mesh to half a mesh of complex numbers, and back.

    Parameters
    ----------
    grid : (int, int, int)
        Mesh points along the three axes.
    dtype : torch.dtype
        Type of the real mesh.
    """

    transform_x: Tensor
    transform_y: Tensor
    transform_z: Tensor
    back_z: Tensor

    def __init__(self, grid: tuple[int, int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.nx, self.ny, self.nz = grid
        self.by_matrix = any(_needs_matrix(size) for size in (self.nx, self.ny, self.nz))
        for name, size in (("transform_x", self.nx), ("transform_y", self.ny)):
            phases = np.exp(-2j * np.pi * (np.outer(np.arange(size), np.arange(size)) % size) / size)
            matrix = torch.tensor(phases if _needs_matrix(size) else np.zeros((0, 0)))
            self.register_buffer(name, matrix.to(torch.complex64 if dtype == torch.float32 else torch.complex128))
        half = self.nz // 2 + 1
        phases = np.exp(-2j * np.pi * (np.outer(np.arange(self.nz), np.arange(half)) % self.nz) / self.nz)
        twice = np.where((np.arange(half) == 0) | (2 * np.arange(half) == self.nz), 1.0, 2.0)
        needed = _needs_matrix(self.nz)
        forward = _interleaved(phases) if needed else np.zeros((0, 0))
        backward = _interleaved(phases * twice).T if needed else np.zeros((0, 0))
        self.register_buffer("transform_z", torch.tensor(forward, dtype=dtype))
        self.register_buffer("back_z", torch.tensor(np.ascontiguousarray(backward), dtype=dtype))

    def forward(self, mesh: Tensor) -> Tensor:
        """Return the transform, (nx, ny, nz / 2 + 1) complex, of a mesh, (nx, ny, nz)."""
        if not self.by_matrix:
            return torch.fft.rfftn(mesh)
        if self.transform_z.shape[0] > 0:
            half = self.nz // 2 + 1
            result = torch.view_as_complex(torch.matmul(mesh, self.transform_z).view(self.nx, self.ny, half, 2))
        else:
            result = torch.fft.rfft(mesh)
        if self.transform_y.shape[0] > 0:
            result = torch.matmul(self.transform_y, result)
        else:
            result = torch.fft.fft(result, dim=1)
        if self.transform_x.shape[0] > 0:
            return torch.matmul(self.transform_x, result.reshape(self.nx, -1)).view(result.shape)
        return torch.fft.fft(result, dim=0)

    @torch.jit.export
    def back(self, transformed: Tensor) -> Tensor:
        """Return the mesh of a transform, times the number of mesh points."""
        if not self.by_matrix:
            return torch.fft.irfftn(transformed, s=[self.nx, self.ny, self.nz], norm="forward")
        result = transformed
        if self.transform_x.shape[0] > 0:
            back = torch.matmul(torch.conj(self.transform_x).resolve_conj(), result.reshape(self.nx, -1))
            result = back.view(result.shape)
        else:
            result = torch.fft.ifft(result, dim=0, norm="forward")
        if self.transform_y.shape[0] > 0:
            result = torch.matmul(torch.conj(self.transform_y).resolve_conj(), result)
        else:
            result = torch.fft.ifft(result, dim=1, norm="forward")
        if self.transform_z.shape[0] > 0:
            pairs = torch.view_as_real(result.contiguous()).view(self.nx, self.ny, -1)
            return torch.matmul(pairs, self.back_z)
        return torch.fft.irfft(result, n=self.nz, norm="forward")
