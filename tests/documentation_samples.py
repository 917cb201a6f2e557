"""What the documentation's code speaks of without defining it: a model, images, labels, and others, all tiny."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 10


class Residual(nn.Sequential):
    """A convolution beside a skip."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU())


class Small(nn.Module):
    """A network with the names of a ResNet's layers, for images of 3 x 32 x 32."""

    def __init__(self, *, dense: bool = False, numbers: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1, self.layer2 = Residual(8, 8), Residual(8, 8)
        self.layer3, self.layer4 = Residual(8, 8), nn.Conv2d(8, 8, 3, padding=1)
        self.dense, self.fc = dense, nn.Conv2d(8, CLASSES, 1) if dense else nn.Linear(8 + numbers, CLASSES)

    def forward(self, x: torch.Tensor, numbers: torch.Tensor | None = None) -> torch.Tensor:
        """Scores of classes, of each place if it is dense."""
        size = x.shape[-2:]
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x).relu())))).relu()
        if self.dense:
            return nn.functional.interpolate(self.fc(x), size)
        vectors = x.mean((2, 3))
        return self.fc(vectors if numbers is None else torch.cat([vectors, numbers], 1))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A transformer's block as timm writes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width), nn.Sequential(nn.Linear(width, width), nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Two heads of attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        q, k, v = self.qkv(x).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        read = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SmallViT(nn.Module):
    """A vision transformer: patches of 8, a class token, two blocks."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 8, 8)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.1 * torch.randn(1, 17, width))
        self.encoder = nn.Sequential(Block(width), Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of classes."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.encoder(x))[:, 0])  # type: ignore[no-any-return]


def namespace() -> dict[str, Any]:
    """The names, all of them new."""
    torch.manual_seed(0)
    pixels, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    many = torch.rand(40, 3, 32, 32)
    classifier = nn.Sequential(nn.Conv2d(1, 4, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(576, CLASSES))
    return {
        "torch": torch, "nn": nn, "Trainer": Trainer, "model": Small().eval(), "other": Small().eval(),
        "vit": SmallViT().eval(), "segmenter": Small(dense=True).eval(), "two_inputs": Small(numbers=2).eval(),
        "classifier": classifier.eval(), "canvas": torch.rand(1, 1, 40, 40), "ages": torch.rand(4, 2),
        "pixels": pixels, "images": pixels.clone(), "photograph": pixels[:1], "labels": labels, "many": many,
        "many_labels": torch.arange(40) % 4, "mask": torch.rand(4, 32, 32) > 0.5,
        "boxes": torch.tensor([[4.0, 4.0, 20.0, 20.0]] * 4),
        "loader": DataLoader(TensorDataset(pixels, labels), batch_size=4),
    }  # fmt: skip
