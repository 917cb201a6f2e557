"""Models from outside, tiny and with random weights, each in a LightningModule as its users write it, with its data.

Each function of `MODELS` returns a module and a data module. No weights are downloaded. In images, volumes, sequences
and videos the class is where a bright patch lies, so that a map can be judged by eye: evidence lies on the patch.
Batches, steps and forwards differ on purpose: they are those of the libraries' own examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

Model = tuple[pl.LightningModule, pl.LightningDataModule]

TRAINED, VALIDATED, BATCH = 24, 24, 8
CLASSES = 4


# --- Data.


class Columns(Dataset[dict[str, Any]]):
    """Rows are dicts, as of Hugging Face's datasets."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: column[index] for name, column in self.columns.items()}


class Data(pl.LightningDataModule):
    """Training and validation data of the same kind."""

    def __init__(
        self, make: Callable[[int, int], Any], *, collate: Callable[[Any], Any] | None = None, loader: Any = DataLoader
    ) -> None:
        super().__init__()
        self.make, self.loader = make, loader
        self.options = {"batch_size": BATCH} | ({} if collate is None else {"collate_fn": collate})

    def setup(self, stage: str | None = None) -> None:
        self.training, self.validation = self.make(TRAINED, 0), self.make(VALIDATED, 1)

    def train_dataloader(self) -> Any:
        return self.loader(self.training, shuffle=True, **self.options)

    def val_dataloader(self) -> Any:
        return self.loader(self.validation, **self.options)


def patches(count: int, seed: int, *shape: int, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Noise ``[N, C, ...]`` of 1 to 3 dimensions, with a bright patch whose place is the class ``[N]``."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    values = 0.3 * torch.rand(count, *shape, generator=generator)
    for value, label in zip(values, labels.tolist(), strict=True):
        value[(..., *patch_of(label, shape[1:], classes))] += 0.6
    return values, labels


def patch_of(label: int, size: Sequence[int], classes: int = CLASSES) -> tuple[slice, ...]:
    """Where a class's patch lies: a part of the line, else a quadrant of the last two dimensions."""
    if len(size) == 1:
        width = size[0] // classes
        return (slice(label * width, (label + 1) * width),)
    places = []
    for part, extent in zip((label // 2, label % 2), size[-2:], strict=True):
        start = part * extent // 2 + extent // 8
        places.append(slice(start, start + extent // 4))
    return tuple(places)


def masks(labels: Tensor, size: Sequence[int], classes: int = CLASSES) -> Tensor:
    """The patches as masks of class plus one ``[N, H, W]``."""
    found = torch.zeros(len(labels), *size, dtype=torch.long)
    for mask, label in zip(found, labels.tolist(), strict=True):
        mask[(..., *patch_of(label, size, classes))] = label + 1
    return found


def labeled(*shape: int, classes: int = CLASSES) -> Data:
    """Batches ``(x, y)``."""
    return Data(lambda count, seed: TensorDataset(*patches(count, seed, *shape, classes=classes)))


def boxed(count: int, seed: int, *size: int) -> Any:
    """Images of unlike sizes with the box of their patch, as torchvision's detectors take them."""
    images, labels = patches(count, seed, 3, *size)
    rows = []
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        y, x = patch_of(label, size)
        box = torch.tensor([[x.start, y.start, x.stop, y.stop]], dtype=torch.float)
        rows.append((image[:, : size[0] - index % 3], {"boxes": box, "labels": torch.tensor([label + 1])}))
    return rows


def pairs(batch: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return tuple(zip(*batch, strict=True))  # type: ignore[return-value]


# --- Modules.


class Trained(pl.LightningModule):
    """The optimizer, which all share."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-3)


class Classifier(Trained):
    """As in timm's and Lightning's examples: batches ``(x, y)``, ``self(x)``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        x, y = batch
        scores = self(x)
        self.log("val_loss", F.cross_entropy(scores, y))
        self.log("val_acc", (scores.argmax(1) == y).float().mean())


def timm_model(name: str, *size: int, **options: Any) -> Model:
    import timm

    return Classifier(timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)), labeled(3, *size)


class DistilledDeiT(Classifier):
    """Its training forward gives two heads' logits."""

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        scores, distilled = self(x)
        return (F.cross_entropy(scores, y) + F.cross_entropy(distilled, y)) / 2


def timm_distilled() -> Model:
    import timm

    name, options = "deit_tiny_distilled_patch16_224", {"embed_dim": 48, "depth": 3}
    net = timm.create_model(name, pretrained=False, num_classes=CLASSES, img_size=(64, 96), **options)
    net.set_distilled_training(True)
    return DistilledDeiT(net), labeled(3, 64, 96)


def timm_mixer() -> Model:
    from timm.models.mlp_mixer import MlpMixer

    return Classifier(MlpMixer(CLASSES, (64, 96), embed_dim=48, num_blocks=3)), labeled(3, 64, 96)


class HuggingFaceModule(Trained):
    """As in the many tutorials: the batch is the model's keyword arguments, which returns the loss as well."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)

    def training_step(self, batch: Any, _: int) -> Tensor:
        loss = self(**batch).loss
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self(**batch).loss)


TINY = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}


def pixel_values(*size: int) -> Data:
    def make(count: int, seed: int) -> Columns:
        images, labels = patches(count, seed, 3, *size)
        return Columns(pixel_values=images, labels=labels)

    return Data(make)


def hf_vit() -> Model:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=(64, 96), patch_size=16, num_labels=CLASSES, **TINY)
    return HuggingFaceModule(ViTForImageClassification(config)), pixel_values(64, 96)


class Dinov2Probe(Trained):
    """A linear probe; forward takes the batch."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import Dinov2Config, Dinov2Model

        self.backbone = Dinov2Model(Dinov2Config(image_size=56, patch_size=14, mlp_ratio=2, **TINY))
        self.head = nn.Linear(TINY["hidden_size"], CLASSES)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden = self.backbone(pixel_values=batch["pixel_values"]).last_hidden_state
        return {"features": hidden, "logits": self.head(hidden[:, 0])}

    def training_step(self, batch: Any, _: int) -> Tensor:
        return F.cross_entropy(self(batch)["logits"], batch["labels"])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch)["logits"], batch["labels"]))


def hf_dinov2() -> Model:
    return Dinov2Probe(), pixel_values(56, 84)


def hf_segformer() -> Model:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=32,
        num_labels=CLASSES + 1,
    )  # fmt: skip

    def make(count: int, seed: int) -> Columns:
        images, labels = patches(count, seed, 3, 64, 96)
        return Columns(pixel_values=images, labels=masks(labels, (64, 96)))

    return HuggingFaceModule(SegformerForSemanticSegmentation(config)), Data(make)


class ClipPair(Trained):
    """Image towers as users fine-tune them: embeddings against one learned vector per class; no ``forward`` at all."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        config = CLIPVisionConfig(image_size=64, patch_size=16, projection_dim=32, **TINY)
        self.vision = CLIPVisionModelWithProjection(config)
        self.texts = nn.Parameter(torch.randn(CLASSES, 32))

    def _logits(self, images: Tensor) -> Tensor:
        embeddings = self.vision(pixel_values=images).image_embeds
        return 10 * F.normalize(embeddings, dim=-1) @ F.normalize(self.texts, dim=-1).T

    def training_step(self, batch: Any, _: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self._logits(images), labels)

    def validation_step(self, batch: Any, _: int) -> None:
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self._logits(images), labels))


def hf_clip() -> Model:
    return ClipPair(), labeled(3, 64, 64)


def hf_bert() -> Model:
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=2, max_position_embeddings=32, **TINY))

    def make(count: int, seed: int) -> Columns:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(5, 50, (count, 16), generator=generator)
        lengths = torch.randint(8, 17, (count,), generator=generator)
        kept = torch.arange(16) < lengths[:, None]
        labels = torch.arange(count) % 2
        tokens[:, 3] = 3 + labels  # the word that tells
        return Columns(input_ids=tokens * kept, attention_mask=kept.long(), labels=labels)

    return HuggingFaceModule(model), Data(make)


def hf_wav2vec2() -> Model:
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    config = Wav2Vec2Config(
        conv_dim=(16, 16, 16), conv_stride=(5, 4, 2), conv_kernel=(10, 8, 4), num_feat_extract_layers=3,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, classifier_proj_size=16, num_labels=CLASSES,
        apply_spec_augment=False, **TINY,
    )  # fmt: skip

    def make(count: int, seed: int) -> Columns:
        waves, labels = patches(count, seed, 1, 1600)
        waves = waves[:, 0] * torch.sin(torch.arange(1600) / 3)
        return Columns(input_values=waves, labels=labels)

    return HuggingFaceModule(Wav2Vec2ForSequenceClassification(config)), Data(make)


class Detr(Trained):
    """As in the tutorials on fine-tuning DETR."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

        backbone = ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
        )
        config = DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=32,
            encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10, num_labels=CLASSES,
        )  # fmt: skip
        self.model = DetrForObjectDetection(config)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> Any:
        return self.model(pixel_values=pixel_values, pixel_mask=pixel_mask)

    def _loss(self, batch: Any) -> Tensor:
        labels = [dict(target) for target in batch["labels"]]
        return self.model(pixel_values=batch["pixel_values"], pixel_mask=batch["pixel_mask"], labels=labels).loss

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self._loss(batch))


def hf_detr() -> Model:
    def make(count: int, seed: int) -> Any:
        images, labels = patches(count, seed, 3, 64, 96)
        rows = []
        for image, label in zip(images, labels.tolist(), strict=True):
            y, x = patch_of(label, (64, 96))
            middle = [(x.start + x.stop) / 192, (y.start + y.stop) / 128, 0.25, 0.25]
            rows.append((image, {"class_labels": torch.tensor([label]), "boxes": torch.tensor([middle])}))
        return rows

    def collate(rows: Any) -> dict[str, Any]:
        images, targets = pairs(rows)
        stacked = torch.stack(images)
        return {"pixel_values": stacked, "pixel_mask": torch.ones_like(stacked[:, 0]).long(), "labels": list(targets)}

    return Detr(), Data(make, collate=collate)


class Bytes(Trained):
    """Images as they are stored, uint8 ``[N, H, W, C]``, which the step prepares."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import MobileViTConfig, MobileViTForImageClassification

        config = MobileViTConfig(
            image_size=64, hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 96],
            num_attention_heads=2, expand_ratio=2.0, num_labels=CLASSES,
        )  # fmt: skip
        self.model = MobileViTForImageClassification(config)

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model(pixel_values).logits

    def _step(self, batch: Any) -> Tensor:
        images = batch["image"].permute(0, 3, 1, 2).float() / 255
        return F.cross_entropy(self(images), batch["label"])

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self._step(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self._step(batch))


def hf_mobilevit() -> Model:
    def make(count: int, seed: int) -> Columns:
        images, labels = patches(count, seed, 3, 64, 64)
        return Columns(image=(images * 255).byte().permute(0, 2, 3, 1), label=labels)

    return Bytes(), Data(make)


class BinarySegmentation(Trained):
    """As in segmentation_models_pytorch's example: one logit per pixel."""

    def __init__(self) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        self.model = smp.Unet("resnet18", encoder_weights=None, classes=1, decoder_channels=(64, 32, 16, 8, 8))
        self.loss = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.loss(self(batch["image"]), batch["mask"])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self.loss(self(batch["image"]), batch["mask"]))


def smp_unet() -> Model:
    def make(count: int, seed: int) -> Columns:
        images, labels = patches(count, seed, 3, 64, 96)
        return Columns(
            image=images, mask=(masks(labels, (64, 96)) > 0).float()[:, None], filename=list(map(str, labels))
        )

    return BinarySegmentation(), Data(make)


class VolumeSegmentation(Trained):
    """As in MONAI's spleen tutorial: dicts of image and label ``[N, 1, D, H, W]``."""

    def __init__(self) -> None:
        super().__init__()
        from monai.losses import DiceCELoss
        from monai.networks.nets import UNet

        self.net = UNet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=1)
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.loss(self(batch["image"]), batch["label"])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self.loss(self(batch["image"]), batch["label"]))


def monai_unet3d() -> Model:
    def make(count: int, seed: int) -> Columns:
        volumes, labels = patches(count, seed, 1, 16, 32, 32)
        truth = (masks(labels, (16, 32, 32)) > 0).long()[:, None]
        return Columns(image=volumes, label=truth)

    return VolumeSegmentation(), Data(make)


def monai_densenet3d() -> Model:
    from monai.networks.nets import DenseNet

    net = DenseNet(3, 1, CLASSES, init_features=8, growth_rate=8, block_config=(2, 2, 2), bn_size=2)
    return Classifier(net), labeled(1, 16, 32, 40)


class Detector(Trained):
    """As in torchvision's tutorial: losses in training, detections in validation."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Any, targets: Any = None) -> Any:
        return self.net(images, targets)

    def training_step(self, batch: Any, _: int) -> Tensor:
        images, targets = batch
        return sum(self(list(images), list(targets)).values())  # type: ignore[no-any-return]

    def validation_step(self, batch: Any, _: int) -> None:
        images, _ = batch
        self.log("boxes", float(sum(len(found["boxes"]) for found in self(list(images)))), batch_size=len(images))


def boxes(*size: int) -> Data:
    return Data(partial(_boxed, size), collate=pairs)


def _boxed(size: tuple[int, ...], count: int, seed: int) -> Any:
    return boxed(count, seed, *size)


def tv_fasterrcnn() -> Model:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    net = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=64, max_size=96
    )
    return Detector(net), boxes(64, 96)


def tv_retinanet() -> Model:
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    return Detector(RetinaNet(backbone, CLASSES + 1, min_size=64, max_size=96)), boxes(64, 96)


class Segmentation(Trained):
    """torchvision's segmentation returns ``{"out": ...}``; pixels of class 255 do not count."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large

        self.net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES + 1)

    def forward(self, x: Tensor) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return F.cross_entropy(self(batch[0])["out"], batch[1], ignore_index=255)

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0])["out"], batch[1], ignore_index=255))


def tv_lraspp() -> Model:
    def make(count: int, seed: int) -> Any:
        images, labels = patches(count, seed, 3, 64, 96)
        truth = masks(labels, (64, 96))
        truth[:, :2] = 255
        return TensorDataset(images, truth)

    return Segmentation(), Data(make)


def tv_mc3() -> Model:
    from torchvision.models.video import mc3_18

    return Classifier(mc3_18(weights=None, num_classes=CLASSES)), labeled(3, 8, 32, 48)


def digits(count: int, seed: int, *, label: bool = True) -> Any:
    """scikit-learn's digits at 16 x 16, in 0 to 1."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    chosen = slice(seed * TRAINED, seed * TRAINED + count)
    x = torch.tensor(images[chosen], dtype=torch.float).view(-1, 1, 8, 8) / 16
    x = F.interpolate(x, (16, 16), mode="bilinear")
    return TensorDataset(x, torch.tensor(labels[chosen])) if label else TensorDataset(x)


class Gan(pl.LightningModule):
    """As in Lightning's example: ``forward(z)``, two optimizers; a generator and a discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(
            nn.Linear(16, 32 * 16), nn.Unflatten(1, (32, 4, 4)), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(32 * 16, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def training_step(self, batch: Any, _: int) -> None:
        images, _ = batch
        for_generator, for_discriminator = self.optimizers()  # type: ignore[attr-defined]
        real, fake = torch.ones(len(images), 1), torch.zeros(len(images), 1)
        made = self(torch.randn(len(images), 16))
        loss = F.binary_cross_entropy(self.discriminator(made), real)
        for_generator.zero_grad()
        self.manual_backward(loss)
        for_generator.step()
        told = F.binary_cross_entropy(self.discriminator(2 * images - 1), real)
        loss = told + F.binary_cross_entropy(self.discriminator(made.detach()), fake)
        for_discriminator.zero_grad()
        self.manual_backward(loss)
        for_discriminator.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(net.parameters(), 2e-4) for net in (self.generator, self.discriminator)]


def gan() -> Model:
    return Gan(), Data(digits)


class Vae(Trained):
    """Returns the reconstruction, the mean and the logarithm of the variance."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.to_mean, self.to_variance = nn.Linear(256, 8), nn.Linear(256, 8)
        self.decoder = nn.Sequential(
            nn.Linear(8, 256), nn.ReLU(), nn.Unflatten(1, (16, 4, 4)), nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(x)
        mean, variance = self.to_mean(hidden), self.to_variance(hidden)
        code = mean + torch.randn_like(mean) * (variance / 2).exp()
        return self.decoder(code), mean, variance

    def _loss(self, batch: Any) -> Tensor:
        x, _ = batch
        made, mean, variance = self(x)
        divergence = -0.5 * (1 + variance - mean**2 - variance.exp()).sum(1).mean()
        return F.binary_cross_entropy(made, x, reduction="sum") / len(x) + divergence

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self._loss(batch))


def vae() -> Model:
    return Vae(), Data(digits)


class Diffusion(Trained):
    """As in diffusers' tutorial: noise is predicted from an image and a time step, which are made in the step."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.net = UNet2DModel(
            sample_size=16, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=8, attention_head_dim=8,
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, t).sample

    def _loss(self, batch: Any) -> Tensor:
        images, _ = batch
        noise, t = torch.randn_like(images), torch.randint(0, 1000, (len(images),))
        kept = torch.cos(t / 1000 * math.pi / 2).view(-1, 1, 1, 1)
        return F.mse_loss(self(kept * images + (1 - kept**2).sqrt() * noise, t), noise)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self._loss(batch))


def diffusion() -> Model:
    return Diffusion(), Data(digits)


class SimClr(Trained):
    """As in lightly's example: batches ``((view, view), label)``, no labels used."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet18

        net = resnet18(weights=None)
        self.backbone = nn.Sequential(*list(net.children())[:-1])
        self.projection = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.backbone(x).flatten(1))

    def _loss(self, batch: Any) -> Tensor:
        (first, second), _ = batch
        codes = F.normalize(torch.cat([self(first), self(second)]), dim=1)
        similar = codes @ codes.T / 0.5
        similar = similar - 1e9 * torch.eye(len(codes))
        return F.cross_entropy(similar, torch.arange(len(codes)).roll(len(first)))

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self._loss(batch))


def simclr() -> Model:
    def make(count: int, seed: int) -> Any:
        images, labels = patches(count, seed, 3, 48, 48)
        return [((image, image.flip(-1)), int(label)) for image, label in zip(images, labels, strict=True)]

    return SimClr(), Data(make)


class Siamese(Trained):
    """Batches ``(first, second, same)``, the last as float; a distance."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 16),
        )  # fmt: skip

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return F.pairwise_distance(self.tower(first), self.tower(second))

    def _loss(self, batch: Any) -> Tensor:
        first, second, same = batch
        distance = self(first, second)
        return (same * distance**2 + (1 - same) * F.relu(1 - distance) ** 2).mean()

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self._loss(batch))


def siamese() -> Model:
    def make(count: int, seed: int) -> Any:
        images, labels = digits(count, seed).tensors
        return TensorDataset(images, images.roll(1, 0), (labels == labels.roll(1)).float())

    return Siamese(), Data(make)


class Lstm(Trained):
    """Sequences ``[N, T, F]``; forward gives the classes' logits."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 24, 2, batch_first=True), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])

    def training_step(self, batch: Any, _: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


def lstm() -> Model:
    def make(count: int, seed: int) -> Any:
        sequences, labels = patches(count, seed, 6, 24)
        return TensorDataset(sequences.transpose(1, 2).contiguous(), labels)

    return Lstm(), Data(make)


class Gnn(Trained):
    """As in PyTorch Geometric's examples: the batch is one graph of many, and forward takes it."""

    def __init__(self) -> None:
        super().__init__()
        from torch_geometric.nn import GCNConv, global_mean_pool

        self.first, self.second, self.head = GCNConv(4, 16), GCNConv(16, 16), nn.Linear(16, 2)
        self.pool = global_mean_pool

    def forward(self, data: Any) -> Tensor:
        x = F.relu(self.first(data.x, data.edge_index))
        x = F.relu(self.second(x, data.edge_index))
        return self.head(self.pool(x, data.batch))

    def training_step(self, batch: Any, _: int) -> Tensor:
        return F.cross_entropy(self(batch), batch.y)

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch), batch.y), batch_size=batch.num_graphs)


def gnn() -> Model:
    from torch_geometric.data import Data as Graph
    from torch_geometric.loader import DataLoader as GraphLoader

    def make(count: int, seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        graphs = []
        for index in range(count):
            nodes = 6 + index % 5
            edges = torch.randint(0, nodes, (2, 3 * nodes), generator=generator)
            x = torch.rand(nodes, 4, generator=generator) + index % 2
            graphs.append(Graph(x=x, edge_index=edges, y=torch.tensor([index % 2])))
        return graphs

    return Gnn(), Data(make, loader=GraphLoader)


class FlattenedDigits(Trained):
    """The step flattens the images; the net is called, there is no ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x.view(len(x), -1)), y)

    def validation_step(self, batch: Any, _: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x.view(len(x), -1)), y))


def mlp_flattened() -> Model:
    return FlattenedDigits(), Data(digits)


class OneLogit(Trained):
    """A binary classifier with one logit and labels as float."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16 * 24, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(1)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return F.binary_cross_entropy_with_logits(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", F.binary_cross_entropy_with_logits(self(batch[0]), batch[1]))


def one_logit() -> Model:
    def make(count: int, seed: int) -> Any:
        images, labels = patches(count, seed, 3, 32, 48, classes=2)
        return TensorDataset(images, labels.float())

    return OneLogit(), Data(make)


MODELS: dict[str, Callable[[], Model]] = {
    "timm_vit_registers": partial(
        timm_model, "vit_small_patch14_reg4_dinov2", 56, 84, img_size=(56, 84), embed_dim=48, depth=3, num_heads=4
    ),
    "timm_deit_distilled": timm_distilled,
    "timm_swin": partial(
        timm_model, "swin_tiny_patch4_window7_224", 56, 84, img_size=(56, 84), embed_dim=24, depths=(1, 1, 2, 1)
    ),
    "timm_convnext": partial(timm_model, "convnext_atto", 64, 96, dims=(16, 24, 32, 48), depths=(1, 1, 2, 1)),
    "timm_mixer": timm_mixer,
    "timm_maxvit": partial(
        timm_model, "maxvit_pico_rw_256", 64, 96, img_size=(64, 96), embed_dim=(32, 32, 64, 64), depths=(1, 1, 1, 1)
    ),
    "timm_efficientnet": partial(timm_model, "efficientnet_lite0", 64, 96),
    "timm_resnet": partial(timm_model, "resnet18d", 64, 96),
    "timm_regnet": partial(timm_model, "regnetx_002", 64, 96),
    "timm_hybrid": partial(
        timm_model, "vit_tiny_r_s16_p8_224", 96, 160, img_size=(96, 160), embed_dim=48, depth=3, num_heads=4
    ),
    "hf_vit": hf_vit,
    "hf_dinov2": hf_dinov2,
    "hf_segformer": hf_segformer,
    "hf_clip": hf_clip,
    "hf_bert": hf_bert,
    "hf_wav2vec2": hf_wav2vec2,
    "hf_detr": hf_detr,
    "hf_mobilevit": hf_mobilevit,
    "smp_unet": smp_unet,
    "monai_unet3d": monai_unet3d,
    "monai_densenet3d": monai_densenet3d,
    "tv_fasterrcnn": tv_fasterrcnn,
    "tv_retinanet": tv_retinanet,
    "tv_lraspp": tv_lraspp,
    "tv_mc3": tv_mc3,
    "gan": gan,
    "vae": vae,
    "diffusion": diffusion,
    "simclr": simclr,
    "siamese": siamese,
    "lstm": lstm,
    "gnn": gnn,
    "mlp_flattened": mlp_flattened,
    "one_logit": one_logit,
}
"""By name, what makes a module and its data."""
