"""A view looks before the first update, at its occasions and at the end, at each number of updates at most once."""

import pytest
import torch

from lightning_viz.callbacks.schedule import Schedule

from .conftest import ConvNet, Watch, fit, images, loader


def steps_of(view, folder, gallery, **options):
    fit(folder, ConvNet(), [view], **options)
    return gallery.tags()["watch/page"]


@pytest.mark.parametrize(
    ("occasions", "epochs", "expected"),
    [
        ({}, 3, [0, 6, 12, 18]),  # every epoch, the last of which is the end: once
        ({"every_n_epochs": 2}, 3, [0, 12, 18]),
        ({"every_n_epochs": 7}, 2, [0, 12]),
        ({"every_n_train_steps": 5}, 2, [0, 5, 10, 12]),
        ({"every_n_train_steps": 6}, 2, [0, 6, 12]),
        ({"every_n_train_steps": 100}, 1, [0, 6]),
        ({"steps": [4, 2, 4]}, 1, [0, 2, 4, 6]),
        ({"steps": []}, 1, [0, 6]),
        ({"steps": [6, 99]}, 1, [0, 6]),
        ({"steps": "log"}, 2, [0, 1, 2, 3, 6, 10, 12]),
        ({"every_n_epochs": 1, "every_n_train_steps": 4, "steps": [1]}, 2, [0, 1, 4, 6, 8, 12]),
    ],
)
def test_looks_are_at_the_updates_asked_for(occasions, epochs, expected, tmp_path, drawn_at_once):
    assert steps_of(Watch(**occasions), tmp_path, drawn_at_once, max_epochs=epochs) == expected


def test_logarithmic_steps_are_four_a_decade_to_a_million():
    steps = [step for step in range(1_000_001) if step < 2000 or step % 100 == 0]
    found = [step for step in steps if Schedule(steps="log").at_step(step)]
    expected = {round(10 ** (quarter / 4)) for quarter in range(25)}
    assert set(found) == {0} | {step for step in expected if step in set(steps)}
    assert {0, 1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 316, 562, 1000} <= set(found)


def test_views_of_different_schedules_each_keep_their_own(tmp_path, drawn_at_once):
    class Other(Watch):
        pass

    class Third(Watch):
        pass

    views = [Watch(every_n_train_steps=2), Other(steps=[3]), Third(every_n_epochs=1)]
    fit(tmp_path, ConvNet(), views)
    by_view = {view.name: [one.step for one in drawn_at_once if one.owner == view.name] for view in views}
    assert list(by_view.values()) == [[0, 2, 4, 6], [0, 3, 6], [0, 6]]


def test_the_first_look_is_before_the_first_update(tmp_path, drawn_at_once):
    weights = {}

    class Weights(Watch):
        def requirements(self, model):
            from lightning_viz.callbacks import Requirements

            return Requirements(weights=("conv1.weight",))

        def draw(self, snapshot):
            weights[snapshot.step] = snapshot.observation.weights["conv1.weight"].clone()
            return super().draw(snapshot)

    model = ConvNet()
    before = model.conv1.weight.detach().clone()
    fit(tmp_path, model, [Weights()])
    assert torch.equal(weights[0], before)
    assert torch.equal(weights[6], model.conv1.weight)
    assert not torch.equal(weights[0], weights[6])


def test_max_steps_in_the_middle_of_an_epoch_still_ends_with_a_look(tmp_path, drawn_at_once):
    assert steps_of(Watch(), tmp_path, drawn_at_once, max_epochs=-1, max_steps=4) == [0, 4]


def test_accumulated_gradients_count_as_one_update(tmp_path, drawn_at_once):
    found = steps_of(Watch(every_n_train_steps=1), tmp_path, drawn_at_once, max_epochs=2, accumulate_grad_batches=4)
    assert found == [0, 1, 2, 3, 4]  # 4 + 2 batches an epoch


def test_one_batch_epochs_are_looked_at_once_each(tmp_path, drawn_at_once):
    train = loader(*images(4))
    found = steps_of(Watch(every_n_epochs=1, every_n_train_steps=1), tmp_path, drawn_at_once, train=train, max_epochs=4)
    assert found == [0, 1, 2, 3, 4]
