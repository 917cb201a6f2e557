"""What is asked for wrongly is an error with the remedy; what is merely missing is a warning, and the run goes on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_viz import (
    ActivationMaps,
    FirstLayerFilters,
    GradCAM,
    Hyperplanes,
    LayerEmbeddings,
    LayerNotFoundError,
    PixelSpace,
    Probe,
    Saliency,
    ViewError,
    ViewWarning,
    default_views,
)

from .conftest import ConvNet, Net, Perceptron, fit, images, loader, plane, said


class Flat(Perceptron):
    """A perceptron on images."""

    def __init__(self):
        super().__init__(inputs=64, classes=3)

    def forward(self, x):
        return super().forward(x.flatten(1))


# Errors before training starts.


@pytest.mark.parametrize(
    ("view", "model", "error", "message"),
    [
        (
            GradCAM(layers="conv3"),
            ConvNet,
            LayerNotFoundError,
            "no layer matches 'conv3'; did you mean 'conv2', 'conv1'?",
        ),
        (
            ActivationMaps(layers=["conv1", "zzz"]),
            ConvNet,
            LayerNotFoundError,
            "no layer matches 'zzz'; the model's layers are 'conv1', 'conv2', 'fc'",
        ),
        (LayerEmbeddings(layers="cnv1"), ConvNet, LayerNotFoundError, "no layer matches 'cnv1'; did you mean 'conv1'"),
        (FirstLayerFilters(layer="con1"), ConvNet, LayerNotFoundError, "no layer matches 'con1'; did you mean 'conv1'"),
        (
            Hyperplanes(),
            ConvNet,
            ViewError,
            "the model's input is not the plane: Hyperplanes is for perceptrons whose first layer is "
            "nn.Linear(2, units)",
        ),
        (Hyperplanes(), Flat, ViewError, "nn.Linear(2, units)"),
        (GradCAM(), Flat, ViewError, "the model has no convolution, so no maps to weigh: name layers= with maps"),
        (ActivationMaps(), Flat, LayerNotFoundError, "the model has no first conv; its layers are 'hidden'"),
        (ActivationMaps(layers=[]), ConvNet, ViewError, "no layers given: name at least one"),
        (GradCAM(layers=[]), ConvNet, ViewError, "name convolutions"),
        (
            LayerEmbeddings(layers="fc", projector="conv1"),
            ConvNet,
            ViewError,
            "'conv1', which is not embed",
        ),
        (LayerEmbeddings(layers=[], input=False), ConvNet, ViewError, "name layers=, or leave input=True"),
    ],
)
def test_a_view_that_does_not_suit_is_an_error_with_the_remedy(view, model, error, message, tmp_path, drawn_at_once):
    network, started = model(), []
    network.on_train_start = lambda: started.append(True)
    with pytest.raises(error) as caught:
        fit(tmp_path, network, [view])
    assert message in str(caught.value)
    assert not started
    assert not drawn_at_once


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradCAM(every_n_epochs=0), "every_n_epochs is 0: give 1 or more"),
        (lambda: GradCAM(every_n_train_steps=0), "every_n_train_steps is 0: give 1 or more"),
        (lambda: GradCAM(every_n_train_steps=2.5), "every_n_train_steps is 2.5: give 1 or more"),
        (lambda: GradCAM(steps="linear"), "steps is 'linear': give a list of numbers, or 'log'"),
        (lambda: GradCAM(steps=5), "steps is 5: give a list, [5], or 'log'"),
        (lambda: GradCAM(steps=[1, -1]), "steps is [1, -1]: give whole numbers of completed updates, 0 or more"),
        (lambda: GradCAM(max_overhead=-0.1), "max_overhead is -0.1: give a share of the training time"),
        (lambda: GradCAM(free_megabytes=-1), "free_megabytes is -1: give a size, 0 or more"),
        (lambda: default_views(log_megabytes=float("nan")), "log_megabytes is nan: give a size, 0 or more"),
        (lambda: default_views(every_n_epochs=0), "every_n_epochs is 0: give 1 or more"),
        (lambda: Probe(samples=0), "samples is 0: give 1 or more"),
        (lambda: Probe(source="test"), "source is 'test': give 'val' or 'train', or inputs"),
        (lambda: Saliency(method="guided"), "method is 'guided': give one of ['gradient', 'smooth_grad', "),
        (lambda: Saliency(target="best"), "no target is written 'best'; targets are 'predicted', 'label'"),
        (lambda: GradCAM(target="top:0"), "no target is written 'top:0'"),
        (lambda: GradCAM(target=[]), "target is an empty list: give one class or more"),
        (lambda: GradCAM(method="cam"), "method is 'cam': give one of ['grad_cam', 'grad_cam_plus_plus'"),
        (lambda: Saliency(reduce="mean"), "reduce is 'mean': give 'sum' or 'max'"),
        (lambda: Saliency(noise_samples=0), "noise_samples is 0"),
        (lambda: Hyperplanes(grid=1), "grid is 1: give 2 or more"),
        (lambda: ActivationMaps(scale="auto"), "scale is 'auto': give 'fixed' or 'map'"),
        (lambda: ActivationMaps(channels="best"), "channels is 'best': give 'random', 'first', 'strongest' or a list"),
        (lambda: LayerEmbeddings(engine="umap"), "engine is 'umap': give 'auto', 'sklearn' or 'opentsne'"),
        (lambda: LayerEmbeddings(samples=0), "samples is 0"),
        (lambda: LayerEmbeddings(pages="thumbnail"), "pages has 'thumbnail': give any of 'scatter', 'thumbnails'"),
    ],
)
def test_a_wrong_argument_is_an_error_where_it_is_given(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "schedule", [{}, {"steps": [1, 2]}, {"max_overhead": 0.5}, {"log_megabytes": 9}, {"animation": True}]
)
def test_two_views_that_would_draw_the_same_are_an_error(schedule, tmp_path, drawn_at_once):
    with pytest.raises(ViewError, match=r"two equal views: GradCAM\(layers='conv1'\) is .* remove one or change an"):
        fit(tmp_path, ConvNet(), [GradCAM(layers="conv1"), GradCAM(layers="conv1", **schedule)])
    assert not drawn_at_once


@pytest.mark.parametrize(
    "argument",
    [
        {"target": 1},
        {"layers": "conv2"},
        {"sanity_check": True},
        {"probe": Probe(seed=1)},
        {"pixel_space": PixelSpace((0.5,), (0.5,))},
    ],
)
def test_an_argument_that_changes_the_picture_tells_views_apart(argument):
    assert GradCAM(**argument).name != GradCAM().name == "GradCAM"


def test_two_views_that_differ_in_one_argument_both_draw(tmp_path, drawn_at_once):
    fit(tmp_path, ConvNet(), [GradCAM(layers="conv1"), GradCAM(layers="conv2")])
    assert {"grad_cam/conv1", "grad_cam/conv2"} == set(drawn_at_once.tags())


def test_a_module_without_forward_is_looked_at_as_its_step_calls_it(tmp_path, drawn_at_once, capsys):
    class Formless(Net):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(64, 3)

        def forward(self, x):
            raise NotImplementedError

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0].flatten(1)), batch[1])

        validation_step = training_step

    fit(tmp_path, Formless(), [ActivationMaps(layers=["net"])])
    lines = capsys.readouterr().err
    assert "inputs: batch[0] flattened to [N, 64], through net; labels: batch[1]" in lines and "failed" not in lines
    assert drawn_at_once.tags() == {"activations/net": [1, 6]}  # before the first step nothing is known


def test_default_views_step_aside_with_one_line_where_a_named_view_errs(tmp_path, drawn_at_once, capsys):
    fit(tmp_path, Flat(), default_views(probe=Probe(samples=4)))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning_viz: skipped")]
    reasons = {"Hyperplanes": "not the plane", "ActivationMaps": "no first conv", "GradCAM": "no maps"}
    reasons["Attention"] = "no attention"
    assert len(lines) == len(reasons)
    for kind, why in reasons.items():
        assert sum(f"skipped {kind}: " in line and why in line for line in lines) == 1
    assert {tag.split("/")[0] for tag in drawn_at_once.tags()} == {
        "filters",
        "saliency",
        "embedding",
        "health",
        "mistakes",
    }


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (GradCAM(layers="unused"), "layer 'unused' is not called in the forward pass: leave it out"),
        (ActivationMaps(layers="unused"), "layer 'unused' is not called in the forward pass: leave it out"),
        (ActivationMaps(layers="conv1", channels=[0, 9]), "channels [9] do not exist: the layer has 4"),
        (GradCAM(layers="fc"), "the output of layer 'fc' is [16, 3], without locations: name a convolution"),
    ],
)
def test_what_only_a_pass_can_tell_is_a_warning_that_names_the_view(view, message, tmp_path, drawn_at_once):
    class Unused(ConvNet):
        def __init__(self):
            super().__init__()
            self.unused = nn.Conv2d(1, 1, 1)

    with pytest.warns(ViewWarning) as caught:
        trainer = fit(tmp_path, Unused(), [view, Saliency()])
    (line,) = said(caught)  # at step 6 it is the same
    assert f"{view.label} failed at step 0" in line or f"skipped {view.label}: " in line
    assert message in line
    assert trainer.global_step == 6
    assert drawn_at_once.tags() == {"saliency/gradient": [0, 6]}


def test_a_target_that_the_model_does_not_have_is_said_once_and_no_other_view_suffers(tmp_path, drawn_at_once):
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), [GradCAM(target=7), Saliency(), ActivationMaps()])
    reason = "target class 7 is out of range: the model has 3 outputs"
    assert said(caught) == [f"lightning_viz: skipped GradCAM(target=7): {reason}"]
    assert {tag.split("/")[0] for tag in drawn_at_once.tags()} == {"saliency", "activations"}


# Warnings about the data.


def test_no_validation_data_is_said_and_training_data_shown(tmp_path, drawn_at_once):
    x, y = images()
    views = [Saliency(samples=16)]
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), views, loader(x, y), None)
    assert said(caught) == ["lightning_viz: no validation data: the samples are training data"]
    shown = torch.as_tensor(drawn_at_once.arguments("saliency/gradient")[0]["images"][..., 0]).float()
    torch.testing.assert_close(shown, x[list(views[0].indices), 0] * 255, atol=0.6, rtol=0)


def test_training_data_asked_for_are_no_warning(tmp_path, drawn_at_once, caplog):
    fit(tmp_path, ConvNet(), [Saliency(probe=Probe("train"))], loader(*images()), None)
    assert not [record for record in caplog.records if record.name == "lightning_viz"]  # there, as warnings are errors
    assert drawn_at_once.tags() == {"saliency/gradient": [0, 6]}


def test_absent_labels_are_said_and_the_predicted_class_explained(tmp_path, drawn_at_once):
    class Autoencoder(Net):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 3)

        def forward(self, x):
            return self.fc(x.flatten(1))

        def training_step(self, batch, batch_idx):
            return self(batch[0]).square().mean()

        validation_step = training_step

    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, Autoencoder(), [Saliency(), LayerEmbeddings(samples=24)], loader(images()[0]))
    assert said(caught) == ["lightning_viz: no labels found in the batches"]
    assert "each sample's predicted class" in drawn_at_once.pictures("saliency/gradient")[6].description
    words = drawn_at_once.pictures("embedding/every_layer")[6].description
    assert "The samples, layer by layer" in words and "true class" not in words


def test_a_probe_larger_than_the_data_is_said_and_takes_all(tmp_path, drawn_at_once):
    views = [Saliency(probe=Probe(samples=30))]
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), views, loader(*images(10)))
    assert said(caught) == ["lightning_viz: the data set holds 10 samples, 30 were asked for"]
    assert sorted(views[0].indices) == list(range(10))
    assert sorted(drawn_at_once.pictures("saliency/gradient")) == [0, 3]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_embeddings_of_a_few_samples_are_pca_and_say_so(count, tmp_path, drawn_at_once):
    view = LayerEmbeddings(
        layers="fc", input=False, probe=Probe(inputs=images()[0][:count], labels=images()[1][:count])
    )
    fit(tmp_path, ConvNet(), [view])
    picture = drawn_at_once.pictures("embedding/every_layer")[6]
    words = "fc: the same for all samples" if count == 1 else "PCA, as samples are few for t-SNE"
    assert words in picture.description
    assert f"{count} samples" in picture.description


def test_embeddings_of_a_data_set_of_three_samples_are_no_warning_as_nobody_named_more(tmp_path, drawn_at_once):
    view = LayerEmbeddings(layers="fc", input=False, pages="scatter")
    fit(tmp_path, ConvNet(), [view], loader(*images()), loader(*images(3)))
    assert "PCA, as samples are few for t-SNE" in drawn_at_once.pictures("embedding/every_layer")[6].description
    assert "only 3 samples: PCA instead of t-SNE" in drawn_at_once.pictures("embedding/fc")[6].description


def test_embeddings_of_some_dozen_samples_say_their_perplexity(tmp_path, drawn_at_once):
    view = LayerEmbeddings(layers="fc", input=False, samples=34, pages="scatter")
    fit(tmp_path, ConvNet(), [view], loader(*images(34), batch_size=17))
    assert "perplexity 11, for few samples" in drawn_at_once.pictures("embedding/every_layer")[2].description
    assert "only 34 samples: perplexity 11" in drawn_at_once.pictures("embedding/fc")[2].description


def test_no_logger_is_said_and_pictures_go_to_a_folder(tmp_path, drawn_at_once):
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), [Saliency()], logger=False)
    folder = tmp_path / "lightning_viz_logs" / "version_0"
    assert said(caught) == [f"lightning_viz: no logger takes images: pictures go to {folder}"]
    assert sorted(file.name for file in (folder / "saliency" / "gradient").iterdir()) == [
        "00000000.md",
        "00000000.png",
        "00000006.md",
        "00000006.png",
    ]


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy"])
def test_other_ways_of_sharding_are_refused_with_a_line_that_names_one_that_is_not(
    name, tmp_path, drawn_at_once, monkeypatch
):
    from pytorch_lightning.strategies import SingleDeviceStrategy

    strategy = type(name, (SingleDeviceStrategy,), {"zero_stage_3": True})("cpu")
    with pytest.warns(ViewWarning) as caught:
        trainer = fit(tmp_path, ConvNet(), [Saliency(), GradCAM()], strategy=strategy)
    assert said(caught) == [
        f"lightning_viz: {name} shards the parameters in a way that views cannot follow, so nothing is logged: shard "
        "them by FSDP2, with strategy=ModelParallelStrategy()"
    ]
    assert trainer.global_step == 6
    assert not drawn_at_once


def test_what_leaves_the_weights_whole_is_not_refused(tmp_path, drawn_at_once):
    from pytorch_lightning.strategies import SingleDeviceStrategy

    zero = type("DeepSpeedStrategy", (SingleDeviceStrategy,), {"zero_stage_3": False})("cpu")  # ZeRO-1 or -2
    fit(tmp_path, ConvNet(), [Saliency(), GradCAM()], strategy=zero)
    assert set(drawn_at_once.tags()) > {"grad_cam/conv2"}


def test_hyperplanes_of_samples_that_are_not_of_the_plane(tmp_path, drawn_at_once):
    class Sliced(Perceptron):
        def forward(self, x):
            return super().forward(x[:, :2])

    x, y = plane()
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, Sliced(), [Hyperplanes(samples=40)], loader(torch.cat([x, x], 1), y, batch_size=40))
    (line,) = said(caught)
    assert "the samples have 4 values each, the plane has two" in line


def test_a_view_whose_check_fails_is_left_out_and_the_run_goes_on(tmp_path, drawn_at_once):
    class Faulty(Saliency):
        def check(self, model):
            raise RuntimeError("out of luck")

    with pytest.warns(ViewWarning) as caught:
        trainer = fit(tmp_path, ConvNet(), [Faulty(), GradCAM()])
    assert trainer.global_step == 6
    assert any("Faulty is left out of this run: RuntimeError: out of luck" in one for one in said(caught))
    assert drawn_at_once.pictures("grad_cam/conv2") and not drawn_at_once.pictures("saliency/gradient")
