"""After Lightning's "Lightning in 15 minutes": an autoencoder without a `forward`, and a training loop alone."""

import sys

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class LitAutoEncoder(L.LightningModule):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def training_step(self, batch, batch_idx):
        x, _ = batch
        x = x.view(x.size(0), -1)
        z = self.encoder(x)
        x_hat = self.decoder(z)
        loss = nn.functional.mse_loss(x_hat, x)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(weights):
    L.seed_everything(1, verbose=False)
    encoder = nn.Sequential(nn.Linear(8 * 8, 32), nn.ReLU(), nn.Linear(32, 3))
    decoder = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 8 * 8))
    autoencoder = LitAutoEncoder(encoder, decoder)
    digits = load_digits()
    dataset = TensorDataset(torch.tensor(digits.images[:200, None] / 16).float(), torch.tensor(digits.target[:200]))
    train_loader = DataLoader(dataset, batch_size=20, shuffle=True)
    trainer = L.Trainer(limit_train_batches=8, max_epochs=1, accelerator="cpu")
    trainer.fit(model=autoencoder, train_dataloaders=train_loader)
    torch.save(autoencoder.state_dict(), weights)


if __name__ == "__main__":
    main(sys.argv[1])
