"""HiPPO matrices: a state that holds the past as coefficients of orthogonal polynomials (Gu et al. 2020, arXiv:2008.07669).

    LegS   A_nk = -sqrt((2n+1)(2k+1)) below the diagonal, -(n+1) on it, 0 above;  B_n = sqrt(2n+1)

A is not normal, but A + p pᵀ is, with p_n = sqrt(n + 1/2) (Gu et al. 2022, arXiv:2111.00396, theorem 1 and appendix C.1):
in its unitary eigenbasis A = Λ - p p*, a diagonal minus rank one, whose powers and resolvents cost O(N).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cutaway.errors import ConfigError


def legs(state: int) -> tuple[Tensor, Tensor]:
    """A (N, N) and B (N,), real, float64."""
    n = torch.arange(state, dtype=torch.float64)
    b = (2 * n + 1).sqrt()
    return -(b[:, None] * b[None, :]).tril(-1) - torch.diag(n + 1), b


def diagonal_plus_low_rank(state: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """LegS in the eigenbasis of its normal part: Λ, p and B, and the basis V (N, N/2).

    Eigenvalues come in conjugate pairs; one of each is kept, the first N/2 numbers of each tensor: the others are their
    conjugates.

    Raises:
        ConfigError: an odd state size, which does not fall into pairs.
    """
    if state < 2 or state % 2:
        raise ConfigError(f"a state of {state} numbers does not fall into conjugate pairs; choose an even size")
    a, b = legs(state)
    p = (torch.arange(state, dtype=torch.float64) + 0.5).sqrt()
    normal = a + p[:, None] * p[None, :]  # -1/2 on the diagonal plus a skew-symmetric matrix
    skew = normal + 0.5 * torch.eye(state, dtype=torch.float64)
    values, basis = torch.linalg.eigh(skew * -1j)  # i times skew is Hermitian
    kept = values.argsort()[state // 2 :]  # those with positive imaginary part
    basis = basis[:, kept]
    rates = torch.complex(torch.full_like(values[kept], -0.5), values[kept])
    turned = basis.mH
    return rates, turned @ p.to(turned.dtype), turned @ b.to(turned.dtype), basis


def rates(kind: str, state: int) -> Tensor:
    """The N/2 rates Λ that a diagonal state space begins with (Gu et al. 2022, arXiv:2206.11893, section 4).

    "legs": those of HiPPO's normal part; "lin": -1/2 + iπn; "inv": -1/2 + i N/π (N/(2n+1) - 1).
    """
    n = torch.arange(state // 2, dtype=torch.float64)
    if kind == "legs":
        return diagonal_plus_low_rank(state)[0]
    if kind not in ("lin", "inv"):
        raise ConfigError(f"no initial rates {kind!r}; there are legs, lin and inv")
    frequency = math.pi * n if kind == "lin" else state / math.pi * (state / (2 * n + 1) - 1)
    return torch.complex(torch.full_like(n, -0.5), frequency)
