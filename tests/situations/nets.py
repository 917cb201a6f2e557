"""Small nets with the structure and names of those of timm, torchvision and Hugging Face."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbed(nn.Module):
    """Patches of 4 x 4 as tokens ``[N, h * w, K]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """One head, as timm's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.proj(F.scaled_dot_product_attention(*self.qkv(tokens).chunk(3, -1)))


class Mlp(nn.Sequential):
    """Two layers, as timm's."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """Of a vision transformer, as timm's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, 2 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class VisionTransformer(nn.Module):
    """As timm's: class, distillation and register tokens stand before the patches."""

    def __init__(self, grid: tuple[int, int], prefix: int = 1, width: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(width)
        self.prefix = nn.Parameter(torch.randn(1, prefix, width))
        self.pos_embed = nn.Parameter(torch.randn(1, prefix + grid[0] * grid[1], width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = torch.cat([self.prefix.expand(len(images), -1, -1), self.patch_embed(images)], 1) + self.pos_embed
        tokens = self.norm(self.blocks(tokens))
        return self.head(tokens[:, 0] if self.prefix.shape[1] else tokens.mean(1))


class MixerBlock(nn.Module):
    """Of an MLP-Mixer, as timm's: one perceptron over the tokens, one over the channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.mlp_tokens = nn.LayerNorm(width), Mlp(tokens, tokens)
        self.norm2, self.mlp_channels = nn.LayerNorm(width), Mlp(width, 2 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.mlp_tokens(self.norm1(tokens).transpose(1, 2)).transpose(1, 2)
        return tokens + self.mlp_channels(self.norm2(tokens))


class MlpMixer(nn.Module):
    """As timm's."""

    def __init__(self, grid: tuple[int, int], width: int = 8) -> None:
        super().__init__()
        self.stem = PatchEmbed(width)
        self.blocks = nn.Sequential(*(MixerBlock(grid[0] * grid[1], width) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(images))).mean(1))


class SwinTransformerBlock(nn.Module):
    """Channels last ``[N, H, W, K]``, as torchvision's; a window is a column."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps + self.attn(self.norm1(maps).flatten(0, 1)).view_as(maps)
        return maps + self.mlp(self.norm2(maps))


class Permute(nn.Module):
    """Channels last, as torchvision's."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1)


class SwinTransformer(nn.Module):
    """As torchvision's."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        patches = nn.Sequential(nn.Conv2d(3, width, 4, 4), Permute(), nn.LayerNorm(width))
        stage = nn.Sequential(SwinTransformerBlock(width), SwinTransformerBlock(width))
        self.features = nn.Sequential(patches, stage)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.features(images)).mean((1, 2)))


class BasicBlock(nn.Module):
    """Of a ResNet, as torchvision's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(maps)))
        return self.relu(maps + self.bn2(self.conv2(inner)))


class ResNet(nn.Module):
    """As torchvision's."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        self.layer1 = nn.Sequential(BasicBlock(channels), BasicBlock(channels))
        self.layer2 = nn.Sequential(BasicBlock(channels), BasicBlock(channels))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.layer2(F.max_pool2d(self.layer1(self.relu(self.bn1(self.conv1(images)))), 2))
        return self.fc(self.avgpool(maps).flatten(1))


class BertLayer(nn.Module):
    """Of a Hugging Face encoder: ``attention``, ``intermediate``, ``output``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.intermediate, self.output = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.layernorm_before, self.layernorm_after = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.layernorm_before(tokens))
        return tokens + self.output(F.gelu(self.intermediate(self.layernorm_after(tokens))))


class BertEncoder(nn.Module):
    """Hugging Face's: the layers in a list called ``layer``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList([BertLayer(width), BertLayer(width)])

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layer:
            tokens = layer(tokens)
        return tokens


class BertClassifier(nn.Module):
    """Hugging Face's names: ``embeddings``, ``encoder.layer.0``, ``pooler``, ``classifier``; on token ids."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embeddings, self.encoder = nn.Embedding(20, width), BertEncoder(width)
        self.pooler, self.classifier = nn.Linear(width, width), nn.Linear(width, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.classifier(torch.tanh(self.pooler(self.encoder(self.embeddings(ids))[:, 0])))


class UNet(nn.Module):
    """A segmentation net with one skip: ``encoder``, ``decoder``, ``head``."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in ((3, 6), (6, 8))
        )
        self.decoder = nn.ModuleList([nn.Sequential(nn.Conv2d(14, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())])
        self.head = nn.Conv2d(6, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        skip = self.encoder[0](images)
        deep = self.encoder[1](F.max_pool2d(skip, 2))
        return self.head(self.decoder[0](torch.cat([skip, F.interpolate(deep, scale_factor=2.0)], 1)))
