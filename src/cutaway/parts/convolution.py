"""The short causal convolution before a scan: every channel mixes its own last few tokens.

    y_t = bias + Σ_k weight[k] ∘ x_{t-K+1+k}        k = 0 … K-1, x = 0 before the beginning

(Gu and Dao 2023, section 3.4; there K = 4.) Time O(T·K·D); it remembers K-1 tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.axes import Float


class CausalConvolution(nn.Module):
    """`weight` is (D, 1, K), as `torch.nn.Conv1d(D, D, K, groups=D)` has it.

    Computed as K shifted products: on a CPU several times as fast as `conv1d`, whose layout is (B, D, T).
    """

    def __init__(self, width: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        made = nn.Conv1d(width, width, kernel, groups=width, bias=bias)
        self.weight, self.bias = made.weight, made.bias

    @property
    def kernel(self) -> int:
        return self.weight.shape[2]

    def forward(
        self, x: Float[Tensor, "b t d"], before: Float[Tensor, "b k d"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """`before` are the K-1 tokens that came before x; zeros by default."""
        tokens = x.shape[1]
        wide = F.pad(x, (0, 0, self.kernel - 1, 0)) if before is None else torch.cat([before, x], 1)
        taps = self.weight[:, 0].t().contiguous()  # (K, D)
        y = wide[:, self.kernel - 1 :] * taps[-1] if self.bias is None else torch.addcmul(self.bias, x, taps[-1])
        for k in range(self.kernel - 1):
            y.addcmul_(wide[:, k : k + tokens], taps[k])
        return y
