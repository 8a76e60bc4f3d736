"""Vision transformer, tiny by default.

Shapes: B batch, C channels, H height, W width, T tokens (patches and one more), D width of a token, N heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.models.table import patch_for


class Attention(nn.Module):
    """Self-attention with one linear layer for queries, keys and values, and one for the output."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Same shape as the input."""
        B, T, D = x_BTD.shape
        q_BNTd, k_BNTd, v_BNTd = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        y_BNTd = F.scaled_dot_product_attention(q_BNTd, k_BNTd, v_BNTd)
        y_BTD: Tensor = self.proj(y_BNTd.transpose(1, 2).reshape(B, T, D))
        return y_BTD


class Block(nn.Module):
    """Attention, then two linear layers, each on normalised tokens and added to them."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, mlp_ratio * dim)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(mlp_ratio * dim, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Same shape as the input."""
        x_BTD = x_BTD + self.attention(self.norm1(x_BTD))
        change_BTD: Tensor = self.fc2(self.gelu(self.fc1(self.norm2(x_BTD))))
        return x_BTD + change_BTD


class ViT(nn.Module):
    """Logits (B, classes), read from a class token after `depth` blocks of attention.

    5,717,416 parameters with patch 16, size 224 and 1000 classes (DeiT-Ti); 5,362,762 for CIFAR-10.

    No dropout. Weights of linear layers, class token and positions are drawn from a normal distribution of
    standard deviation 0.02, biases are zero; the patch convolution has torch's initialisation.

    Args:
        channels: C of the images.
        size: H and W of the images, a multiple of `patch`.
        classes: number of logits.
        patch: side of a patch, in pixels. Default by size: 2 up to 16, 4 up to 64, 8 up to 128, 16 above.
        dim: width of a token, a multiple of `heads`; default 192 (DeiT-Ti), as are the next two.
        depth: number of blocks; default 12.
        heads: attention heads in each block; default 3.
        mlp_ratio: width of a block's hidden layer over `dim`; default 4 (Dosovitskiy et al., Table 1).

    Source: Dosovitskiy et al., ICLR 2021; Touvron et al., arXiv:2012.12877, Table 1 (DeiT-Ti).
    """

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        classes: int,
        patch: int | None = None,
        dim: int = 192,
        depth: int = 12,
        heads: int = 3,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        patch = patch or patch_for(size)
        self.patches = nn.Conv2d(channels, dim, patch, stride=patch)
        self.token = nn.Parameter(torch.empty(1, 1, dim))
        self.positions = nn.Parameter(torch.empty(1, (size // patch) ** 2 + 1, dim))
        self.blocks = nn.Sequential(*[Block(dim, heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the class token, the positions and all linear layers anew."""
        nn.init.trunc_normal_(self.token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for cell in self.modules():
            if isinstance(cell, nn.Linear):
                nn.init.trunc_normal_(cell.weight, std=0.02)
                nn.init.zeros_(cell.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        patches_BTD = self.patches(x_BCHW).flatten(2).transpose(1, 2)
        token_B1D = self.token.expand(len(patches_BTD), -1, -1)
        x_BTD = torch.cat([token_B1D, patches_BTD], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x_BTD))[:, 0])
        return logits
