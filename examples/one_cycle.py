"""A training loop that several examples share: a learning rate that rises to a hundredth and falls again."""

from torch.optim.lr_scheduler import OneCycleLR


def fit(model, optimizer, steps, loss_of_batch, *, what="loss"):
    """Train a model for so many steps, each on a batch that `loss_of_batch` picks; returns it in eval mode."""
    schedule = OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for step in range(steps):
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {what} {loss:.4f}", flush=True)
    return model.eval()
