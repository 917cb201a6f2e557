"""After Fabric's `image_classifier/train_fabric.py`: a loop of one's own, which calls no callbacks."""

import sys

import torch
from lightning.fabric import Fabric, seed_everything
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1)
        self.conv2 = nn.Conv2d(8, 16, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.fc1 = nn.Linear(64, 32)
        self.dropout2 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = self.dropout1(F.max_pool2d(x, 2))
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return F.log_softmax(self.fc2(self.dropout2(x)), dim=1)


def main(weights):
    fabric = Fabric(accelerator="cpu")
    seed_everything(1, verbose=False)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.images[:, None] / 16).float(), torch.tensor(digits.target))
    train_loader = DataLoader(torch.utils.data.Subset(data, range(200)), batch_size=20, shuffle=True)
    test_loader = DataLoader(torch.utils.data.Subset(data, range(200, 260)), batch_size=60)
    train_loader, test_loader = fabric.setup_dataloaders(train_loader, test_loader)
    model = Net()
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    model, optimizer = fabric.setup(model, optimizer)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    for _ in range(2):
        model.train()
        for data, target in train_loader:
            optimizer.zero_grad()
            output = model(data)
            loss = F.nll_loss(output, target.long())
            fabric.backward(loss)
            optimizer.step()
        scheduler.step()
        model.eval()
        with torch.no_grad():
            for data, target in test_loader:
                F.nll_loss(model(data), target.long(), reduction="sum")
    torch.save(model.state_dict(), weights)


if __name__ == "__main__":
    main(sys.argv[1])
