"""After Lightning's `backbone_image_classifier.py`: a LightningCLI, a LightningDataModule, torchvision's transforms."""

import sys

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import transforms


class Digits(Dataset):
    def __init__(self, transform):
        self.digits, self.transform = load_digits(), transform

    def __len__(self):
        return 300

    def __getitem__(self, index):
        image = (self.digits.images[index] * 15.9).astype("uint8")
        return self.transform(image), int(self.digits.target[index])


class Backbone(torch.nn.Module):
    def __init__(self, hidden_dim=8):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, hidden_dim, 3)
        self.norm = torch.nn.BatchNorm2d(hidden_dim)
        self.conv2 = torch.nn.Conv2d(hidden_dim, 12, 3)
        self.dropout = torch.nn.Dropout(0.2)
        self.l1 = torch.nn.Linear(12, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv1(x)))
        x = torch.relu(self.conv2(F.max_pool2d(x, 2)))
        return self.l1(self.dropout(x.mean((2, 3))))


class LitClassifier(LightningModule):
    def __init__(self, backbone: Backbone | None = None, learning_rate: float = 0.01):
        super().__init__()
        self.save_hyperparameters(ignore=["backbone"])
        self.backbone = Backbone() if backbone is None else backbone

    def forward(self, x):
        return self.backbone(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("valid_loss", F.cross_entropy(self(x), y), on_step=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)


class MyDataModule(LightningDataModule):
    def __init__(self, batch_size: int = 32):
        super().__init__()
        steps = [transforms.ToPILImage(), transforms.Resize(16), transforms.ToTensor(), transforms.Normalize(0.3, 0.4)]
        dataset = Digits(transforms.Compose(steps))
        self.train, self.val = random_split(dataset, [240, 60], generator=torch.Generator().manual_seed(42))
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=self.batch_size)


def main(weights):
    cli = LightningCLI(
        LitClassifier,
        MyDataModule,
        seed_everything_default=1234,
        save_config_callback=None,
        run=False,
        args=["--trainer.max_epochs=2", "--trainer.accelerator=cpu"],
    )
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    torch.save(cli.model.state_dict(), weights)


if __name__ == "__main__":
    main(sys.argv[1])
