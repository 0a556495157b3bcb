"""The two methods that are not at one linear layer: CLOVER inside an attention, ReFT on hidden states."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from padp.compiler.kernels import dense as kernels


class CLOVER(nn.Module):
    """Joint: score_h = x̃ᵀ U T Vᵀ x̃ as one e×e matrix a head on what the query projection puts out, likewise before O.

    With Q̃ = [W_Q, b_Q]: U = Q̃ᵀ X and Vᵀ = Y K̃, so that qᵀ (X T Y) k is the score, and X and Y are small and frozen.
    ``weights``: W_Q (H,e,d), W_K, W_V (G,e,d), W_O (H,d,e), and b_Q, b_K, b_V where there are biases.
    """

    X_qk: Tensor
    Y_qk: Tensor
    X_vo: Tensor
    Y_vo: Tensor

    def __init__(self, weights: Mapping[str, Tensor], T_qk: Tensor, T_vo: Tensor) -> None:
        super().__init__()
        heads, e, _ = weights["W_Q"].shape
        Q = _with_bias(weights, "Q")
        K, V = (kernels.grouped(_with_bias(weights, role), heads, 2) for role in "KV")
        out = weights["W_O"]
        with torch.no_grad():
            U, _, Vt = kernels.svd(Q.mT @ K, e)
            E, _, F = kernels.svd(out @ V, e)
            for name, value in (("X_qk", torch.linalg.solve(Q @ Q.mT, Q @ U)),
                                ("Y_qk", torch.linalg.solve(K @ K.mT, K @ Vt.mT).mT),
                                ("X_vo", torch.linalg.solve(out.mT @ out, out.mT @ E)),
                                ("Y_vo", torch.linalg.solve(V @ V.mT, V @ F.mT).mT)):
                self.register_buffer(name, value)
        self.T_qk, self.T_vo = (nn.Parameter(T.detach().clone()) for T in (T_qk, T_vo))

    def queries(self, q: Tensor) -> Tensor:
        """(T, H, e) as the projection puts them out → as they meet the keys."""
        return _each_head(q, self.X_qk @ self.T_qk @ self.Y_qk)

    def mixed(self, z: Tensor) -> Tensor:
        """(T, H, e) as the attention mixes values → as they go into the output projection."""
        return _each_head(z, (self.X_vo @ self.T_vo @ self.Y_vo).mT)


def _with_bias(weights: Mapping[str, Tensor], role: str) -> Tensor:
    """[W, b] for every head, a column of zeros where there is no bias."""
    W = weights[f"W_{role}"]
    bias = weights.get(f"b_{role}", W.new_zeros(W.shape[:-1]))
    return torch.cat([W, bias[..., None]], -1)


def _each_head(z: Tensor, M: Tensor) -> Tensor:
    """Rows z_h M_h: a batch of products over heads, read and written through strides."""
    return torch.bmm(z.transpose(0, 1), M).transpose(0, 1)


class ReFT(nn.Module):
    """LoReFT: h + Rᵀ (M h + b − R h) with M − R made once a step: two thin products, not three."""

    def __init__(self, R: Tensor, M: Tensor, b: Tensor) -> None:
        super().__init__()
        self.R, self.M, self.b = (nn.Parameter(t.detach().clone()) for t in (R, M, b))

    def forward(self, h: Tensor) -> Tensor:
        R = kernels.orthonormal_rows(self.R)
        rows = h.reshape(-1, h.shape[-1])
        return torch.addmm(rows, torch.addmm(self.b, rows, (self.M - R).T), R).view(h.shape)
