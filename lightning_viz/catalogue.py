"""What there is: one description of every method, technique and view, which commands, views and reports ask.

The formulas are in the functions that the rows name; a row can be read without importing them, and so without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any

from lightning_viz.catalogue_types import Descriptor, Family, Method, Technique, ViewEntry
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hints import unknown_name

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "compared": "Compared",
        "parameters": "Parameters",
        "activations": "Activations",
        "embeddings": "Embeddings",
        "attribution": "Attribution",
        "predictions": "Dense predictions",
        "dreams": "Dreams",
        "adversarial": "Adversarial samples",
        "corruptions": "Corruptions and cues",
        "others": "Others",
    }
)
"""Titles of a report's sections, in order: from the weights to what breaks them."""


def methods(family: Family | None = None, *, view: str | None = None) -> dict[str, Method]:
    """Methods by name, in the order in which they are listed.

    Args:
        family: the only one; all if omitted.
        view: kind of the view that draws them; whether or not any does if omitted.

    >>> list(methods(view="adversarial"))
    ['pgd', 'apgd', 'fgsm', 'deepfool', 'fab', 'gradient_ascent']
    """
    return {
        entry.name: entry
        for entry in CATALOGUE
        if isinstance(entry, Method) and family in (None, entry.family) and view in (None, entry.view)
    }


def method(name: str) -> Method:
    """A method by its name.

    Args:
        name: as its function or its command calls it.

    Raises:
        InvalidArgumentError: there is none.

    >>> method("layer_cam").title
    'LayerCAM'
    """
    known = methods()
    if words := unknown_name("method", [name], known):
        raise InvalidArgumentError(words)
    return known[name]


def techniques() -> dict[str, Technique]:
    """Techniques of `analyze` by name, in the order in which they run."""
    return {entry.name: entry for entry in CATALOGUE if isinstance(entry, Technique)}


def views() -> dict[str, ViewEntry]:
    """Views by kind, in the order in which a report shows them."""
    return {entry.name: entry for entry in CATALOGUE if isinstance(entry, ViewEntry)}


def entry_of(tag: str) -> Descriptor:
    """The description of a picture or number, or of what is called so; of an unknown one only where it stands.

    Args:
        tag: its parts separated by ``/``, of which the longest known beginning counts; or the name of a technique,
            view or method.

    >>> entry_of("saliency/gradient/classes").title, entry_of("grad_cam/conv2").title, entry_of("mine/own").section
    ('Gradient', 'Grad-CAM', 'others')
    """
    parts, known = tag.split("/"), _by_tag()
    beginnings = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
    key = next((beginning for beginning in beginnings if beginning in known), None)
    if key is None:
        return Descriptor(parts[0], parts[0], section="others", tags=(parts[0],))
    return known[key]


def view_kind(tag: str) -> str:
    """The kind of the view that draws a picture or plots a number.

    Args:
        tag: of the picture or number.

    >>> view_kind("layer_cam/conv2"), view_kind("health")
    ('grad_cam', 'health')
    """
    entry = entry_of(tag)
    return entry.view if isinstance(entry, Method) and entry.view else entry.name


OVERVIEW = ("health", "mistakes", "grad_cam", "attention", "saliency", "filters", "activations")
"""Kinds of views whose pictures come first on TensorBoard, in order: is it healthy, what is wrong, where it looks."""


def board_tag(tag: str) -> str:
    """The tag under which TensorBoard shows a picture: it sorts groups by name, and cards within a group.

    Args:
        tag: of the picture.

    >>> board_tag("health"), board_tag("layer_cam/conv2"), board_tag("embedding/fc")
    ('1_overview/1_health', '1_overview/3_layer_cam/conv2', 'embedding/fc')
    """
    kind = view_kind(tag)
    return f"1_overview/{OVERVIEW.index(kind) + 1}_{tag}" if kind in OVERVIEW else tag


def curve_tag(tag: str) -> str:
    """The tag under which TensorBoard plots a number of a view: behind the run's own.

    Args:
        tag: of the number.

    >>> curve_tag("embedding/fc/knn_accuracy"), curve_tag("mine/own")
    ('z_embedding/fc/knn_accuracy', 'mine/own')
    """
    return tag if entry_of(tag).section == "others" else f"z_{tag}"


@cache
def _by_tag() -> dict[str, Descriptor]:
    """Entries by tag; one without tags by its name, unless that is another's tag."""
    by_tag = {tag: entry for entry in CATALOGUE for tag in entry.tags}
    return {**{entry.name: entry for entry in CATALOGUE}, **by_tag}


def _rungs(**settings: tuple[Any, ...]) -> tuple[Mapping[str, Any], ...]:
    """Rungs of a technique, by setting from the whole to the least."""
    return tuple(dict(zip(settings, values, strict=True)) for values in zip(*settings.values(), strict=True))


_compared = partial(Descriptor, section="compared")
_technique = partial(Technique, needs=("classes",))
_attribution = partial(
    Method, family="attribution", section="attribution", study="attribution.attribute", samples=8, example="--target 3"
)
_cam = partial(
    _attribution, view="grad_cam", module="attribution.cam", display="heat", unit="logits",
    needs=("target", "gradient", "maps"),
)  # fmt: skip
_saliency = partial(_attribution, view="saliency", module="attribution.gradients", needs=("target", "gradient"))
_attention = partial(
    _attribution, view="attention", module="attribution.attention_maps", display="heat", unit="of attention",
    needs=("attention",),
)  # fmt: skip
_guided = partial(
    _saliency, module="attribution.guided_backprop", display="image", needs=("target", "gradient", "relu")
)
_dream = partial(Method, family="dream", section="dreams", cost="steps")
_attack = partial(
    Method, family="attack", section="adversarial", unit="l2", needs=("classes", "gradient"), study="attacks.attack"
)
_robustness = partial(Method, family="robustness", section="adversarial", needs=("classes",))

# fmt: off
CATALOGUE: tuple[Descriptor, ...] = (  # a table, each row in as few lines as it takes
    _compared("compared/epsilon", "Accuracy under attack",
        "The share of samples that stay correct when an attack may change every pixel by up to epsilon, for all models "
        "on the same samples. If the curves start alike, the one further right belongs to the more robust model.",
        tags=("compared/epsilon",)),
    _compared("compared/robust_accuracy", "Robust accuracy",
        "Accuracy on the same samples as they are and under AutoAttack, for all models. The lower bar is what a strong "
        "attack leaves; on few samples a difference of one or two means little.", tags=("compared/robust_accuracy",)),
    _compared("compared/corruptions", "Corruption errors",
        "The first model's error by corruption and severity, and beside it each model's corruption error relative to "
        "the first. Below 1 a model withstands that corruption better; errors on clean images count, too.",
        tags=("compared/corruptions",)),
    _compared("compared/perturbation_stability", "Perturbation stability",
        "How often each model's class changes from one small step of an image to the next, and beside it the flip rate "
        "relative to the first model's. Below 1 a model is steadier; it may be steadily wrong.",
        tags=("compared/perturbation_stability",)),
    _compared("compared/shape_bias", "Shape or texture",
        "The share of cue-conflict images that each model decides by shape rather than by texture. People are near 1; "
        "networks trained on photographs alone mostly follow the texture.", tags=("compared/shape_bias",)),
    ViewEntry("health", "Health of the layers",
        "Each row is a layer, each bar a step: dead units, the size of single updates, the scale of activations. The "
        "sentence says what is wrong and since when; red is only what is beyond doubt.",
        cost="reads the validation pass that runs anyway, and copies the weights for one update", section="parameters",
        module="callbacks.health", symbol="Health", tags=("health",), default=True),
    ViewEntry("mistakes", "What it gets wrong",
        "The validation samples with the largest loss, with truth, prediction and where the evidence for it lies, and "
        "which classes are taken for which. A label that looks wrong to you may be wrong.",
        cost="reads the validation pass that runs anyway; one forward and backward of the samples shown",
        section="predictions", module="callbacks.mistakes", symbol="Mistakes", tags=("mistakes",), default=True),
    ViewEntry("filters", "Filters of the first layer",
        "Each tile is a filter that the layer slides over the image: edges, blobs and colors show that it has learned. "
        "Noise that stays the same from step to step shows an unused filter.",
        cost="no pass: it reads the weights", section="parameters", module="callbacks.first_layer_filters",
        symbol="FirstLayerFilters", tags=("filters",), default=True),
    Method("filters", "Filters", "Shows the weights of convolutions and fully connected layers as images.",
        family="filters", section="parameters", module="analysis.studies.filters", symbol="layer_filters",
        study="filters.layer_filters", example="--layers conv1", view="filters", cost=0),
    ViewEntry("update_ratio", "Size of single updates",
        "Each row is a layer, each column a step: the power of ten of one update's norm relative to the weights' norm. "
        "About -3 is usual; far above it training may diverge, far below it a layer hardly learns.",
        cost="no pass: it copies the weights for one update", section="parameters", module="callbacks.update_ratio",
        symbol="UpdateRatio", tags=("update_ratio",), rungs=((),)),
    ViewEntry("hyperplanes", "Hyperplanes of hidden units",
        "Each dark line is where one unit changes its sign; the pale background is the class predicted there. Lines "
        "gather along the boundaries between classes in training; those far from the data do no work.",
        cost="a forward of the `grid` x `grid` points of the plane", section="parameters",
        module="callbacks.hyperplanes", symbol="Hyperplanes", tags=("hyperplanes",), default=True),
    ViewEntry("activations", "Activation maps",
        "Each row is a sample and each column a channel, red where it is positive and blue where it is negative. A "
        "channel that looks the same for all samples carries no information about them.",
        section="activations", module="callbacks.activation_maps", symbol="ActivationMaps", tags=("activations",),
        default=True),
    ViewEntry("statistics", "Distributions of activations",
        "Each ridge is the histogram of a layer's activations at one step, the latest in front. Ridges that drift "
        "outward or collapse onto zero are signs of exploding values and dead units.",
        cost="reads the validation pass that runs anyway", section="activations",
        module="callbacks.activation_statistics", symbol="ActivationStatistics", tags=("statistics",)),
    ViewEntry("top_samples", "Top samples of each channel",
        "Each block shows one channel with the validation samples that excite it most. What they have in common is the "
        "best short description of the channel.",
        cost="reads the validation pass that runs anyway; a forward and backward of the samples shown",
        section="activations", module="callbacks.top_samples", symbol="TopSamples", tags=("top_samples",),
        rungs=tuple(({"best": best},) for best in (9, 4))),
    ViewEntry("embedding", "Embeddings of samples",
        "Each point is a sample; samples that the layer represents alike lie close together. Classes should separate "
        "from layer to layer; in t-SNE distances between groups and their sizes mean little.",
        cost="a forward of `samples` samples, in batches; t-SNE runs in the drawing process", section="embeddings",
        module="callbacks.layer_embeddings", symbol="LayerEmbeddings", tags=("embedding",), default=True),
    Method("tsne", "t-SNE", "Keeps neighbors close together in the plane.", source="van der Maaten and Hinton, 2008",
        family="embedding", section="embeddings", module="embedding", view="embedding", study="embedding.embed",
        samples=1000, example="--layers fc"),
    Method("pca", "PCA", "Projects samples onto their first principal components.",
        family="embedding", section="embeddings", module="embedding", view="embedding", study="embedding.embed",
        samples=1000, example="--layers fc"),
    _technique("attributions", "All methods side by side",
        "Every method explains the same samples, so agreement between different methods is evidence and a single map "
        "is not. The numbers tell which of them to trust.",
        summary="what in the image mattered, by every method, and which to believe", section="attribution",
        module="analysis.studies.attribution", symbol="every_attribution",
        tags=("attributions", "attributions left out"),
        rungs=_rungs(samples=(16, 8, 4, 4, 2), copies=(50, 50, 50, 20, 10),
                     every_channel=(True, False, False, False, False))),
    ViewEntry("grad_cam", "Class activation maps", "Where, seen from a layer, the evidence for a class lies.",
        cost="no pass of its own; Score-CAM and Ablation-CAM a forward for each channel", section="attribution",
        module="callbacks.grad_cam", symbol="GradCAM", default=True,
        rungs=(({"sanity_check": True},), ({"sanity_check": False},))),
    _cam("grad_cam", "Grad-CAM",
        "Weights each activation map by its mean gradient: bright locations hold evidence for the class.",
        source="Selvaraju et al., 2017", tags=("grad_cam",)),
    _cam("grad_cam_plus_plus", "Grad-CAM++",
        "Weights each activation map by its positive gradients, location by location, so that several objects show.",
        source="Chattopadhay et al., 2018", tags=("grad_cam_plus_plus",)),
    _cam("xgrad_cam", "XGrad-CAM",
        "Weights each activation map by its gradients, averaged by activation, so that the map sums to the score more "
        "nearly.", source="Fu et al., 2020", tags=("xgrad_cam",)),
    _cam("hires_cam", "HiResCAM",
        "Multiplies activations by gradients at each location, so that only locations that the score was computed from "
        "are bright.", source="Draelos and Carin, 2020", tags=("hires_cam",)),
    _cam("layer_cam", "LayerCAM",
        "Weights each location by its own positive gradient, so that early layers give fine maps, too.",
        source="Jiang et al., 2021", tags=("layer_cam",)),
    _cam("score_cam", "Score-CAM",
        "Weights each activation map by the target's score when the image is masked with it, without any gradient.",
        source="Wang et al., 2020", tags=("score_cam",), module="attribution.cam_without_gradients",
        needs=("target", "maps", "image"), unit="of activation", cost="channels"),
    _cam("ablation_cam", "Ablation-CAM",
        "Weights each activation map by the share of the score that is lost when it is set to zero, without any "
        "gradient.", source="Desai and Ramaswamy, 2020", tags=("ablation_cam",),
        module="attribution.cam_without_gradients", needs=("target", "maps"), unit="of activation", cost="channels"),
    _cam("eigen_cam", "EigenCAM",
        "Projects the activation maps onto their first principal component, whatever the class.",
        source="Muhammad and Yeasin, 2020", tags=("eigen_cam",), needs=("maps",), unit="of activation"),
    ViewEntry("attention", "Attention of a transformer", "What in the image a transformer's tokens attend to.",
        cost="no pass of its own; gradient-weighted attention a forward and backward", section="attribution",
        module="callbacks.attention", symbol="Attention", default=True),
    _attention("attention", "Attention",
        "Shows what the class token attends to, head by head: what a layer reads, not yet evidence for the class.",
        source="Dosovitskiy et al., 2021", tags=("attention/raw",), worth="what it reads, not why it decides"),
    _attention("attention_rollout", "Attention rollout",
        "Multiplies the attention of all layers, from the class token back to the patches, whatever the class.",
        source="Abnar and Zuidema, 2020", tags=("attention/rollout",), worth="says where, not for which class"),
    _attention("gradient_attention", "Gradient-weighted attention",
        "Keeps of each layer's attention what raises the class's score, and follows it back to the patches.",
        source="Chefer et al., 2021", tags=("attention/gradient",), needs=("target", "gradient", "attention"),
        worth="evidence for the class, unlike rollout; small is not unsure", display="own heat",
        unit="logits: attention × ∂score/∂attention"),
    ViewEntry("saliency", "Saliency maps",
        "Beside each input stands how much each of its values changes the class's score.",
        cost="no pass of its own for gradients, a backward more for guided ones; the others as the table says",
        section="attribution", module="callbacks.saliency", symbol="Saliency", tags=("saliency",), default=True,
        pages=2,
        rungs=tuple(
            ({"method": "smooth_grad", "noise_samples": copies, "sanity_check": check},
             {"method": "guided_backprop", "sanity_check": check})
            for copies, check in ((50, True), (25, True), (25, False), (10, False)))),
    _saliency("gradient", "Gradient",
        "Shows how strongly a small change of each pixel moves the score; the plain gradient is noisy.",
        source="Simonyan et al., 2014", tags=("saliency/gradient",), display="sum", unit="logits per unit of input"),
    _saliency("smooth_grad", "SmoothGrad",
        "Averages the gradient over noisy copies of the input, which leaves less noise in the map.",
        source="Smilkov et al., 2017", tags=("saliency/smooth_grad",), display="sum", unit="logits per unit of input",
        module="attribution.noise_statistics", cost="noise_samples"),
    _saliency("input_times_gradient", "Input × gradient",
        "Shows each pixel's contribution to first order, red for the class and blue against it.",
        source="Shrikumar et al., 2016", tags=("saliency/input_times_gradient",), display="signed", unit="logits"),
    _saliency("integrated_gradients", "Integrated gradients",
        "Integrates the gradient from a baseline to the input: contributions, red for the class and blue against it, "
        "sum to the change of the score.",
        source="Sundararajan et al., 2017", tags=("saliency/integrated_gradients",), display="signed", unit="logits",
        cost="steps"),
    _guided("guided_backprop", "Guided backpropagation",
        "Keeps only positive gradients at active ReLUs: sharp maps that follow the image's edges more than the class.",
        source="Springenberg et al., 2015", tags=("saliency/guided_backprop",), rule="guided"),
    _guided("deconvolution", "Deconvolution",
        "Keeps only positive gradients at every ReLU, active or not, which projects activity back to the image.",
        source="Zeiler and Fergus, 2014", tags=("saliency/deconvolution",), rule="deconvolution"),
    _guided("guided_grad_cam", "Guided Grad-CAM",
        "Multiplies the guided gradient by the class activation map: fine patterns where the evidence lies.",
        source="Selvaraju et al., 2017", tags=("saliency/guided_grad_cam",), rule="guided",
        needs=("target", "gradient", "relu", "maps", "image")),
    _saliency("lrp", "LRP",
        "Hands the score back layer by layer, to each input its share of what the layer summed: red for the class, "
        "blue against it.", source="Bach et al., 2015", tags=("saliency/lrp",), module="attribution.relevance",
        display="signed", unit="logits", cost=2),
    _saliency("rise", "RISE",
        "Averages random masks by the probability of the class seen through each, without any gradient: bright places "
        "keep it when they are seen.", source="Petsiuk et al., 2018", tags=("saliency/rise",),
        module="attribution.random_masks", needs=("target", "image"), display="contrast", unit="probability",
        cost="masks"),
    _attribution("gradient_irregularity", "Gradient irregularity",
        "Follows one pixel's partial derivatives along a walk too short to see: curves that jump show how little one "
        "gradient says.", source="Smilkov et al., 2017", tags=("gradient_irregularity",), samples=4,
        module="attribution.irregularity", needs=("target", "gradient", "image"), cost="steps",
        study="irregularity.irregular_gradients"),
    ViewEntry("occlusion", "Occlusion", "How far the class's score drops when a patch covers each location.",
        cost="a forward of `samples` samples for each position of the patch", section="attribution",
        module="callbacks.occlusion", symbol="Occlusion",
        rungs=tuple(({"samples": samples, "sanity_check": check},)
                    for samples, check in ((3, True), (3, False), (2, False), (1, False)))),
    _attribution("occlusion", "Occlusion",
        "Covers the image patch by patch and shows how far the score drops; without gradients it can judge the other "
        "maps, as coarsely as its patch.",
        source="Zeiler and Fergus, 2014", tags=("occlusion",), module="attribution.occlusion",
        needs=("target", "image"), view="occlusion", display="signed", unit="logits", cost="positions"),
    ViewEntry("predictions", "Predictions and truth",
        "Each row is a sample: the input, the truth, the prediction, and where the two differ. Errors along edges are "
        "common and mild; whole regions of a wrong class are not.",
        section="predictions", module="callbacks.predictions", symbol="Predictions", tags=("predictions",)),
    ViewEntry("dreams", "Images that maximize units and classes",
        "Each image was optimized from noise to excite the unit or class named under it. What recurs in all of them is "
        "a habit of the network, not the class.",
        cost="`updates` forwards and backwards of the dreamed images", section="dreams", module="callbacks.dreams",
        symbol="Dreams", tags=("dreams",), pages=2,
        rungs=tuple(({"each": each, "updates": updates},) for each, updates in ((10, 30), (5, 30), (3, 20)))),
    _technique("dreams", "Images that maximize classes", summary="what each class looks like to the model",
        section="dreams", module="analysis.studies.dreams",
        rungs=_rungs(classes=(10, 10, 10, 4, 2), steps=(250, 120, 60, 60, 40))),
    _dream("classes", "Activation maximization of classes",
        "Optimizes an image for each class, under priors that keep it natural.",
        source="Simonyan et al., 2014", study="dreams.dream_classes",
        example="--classes 0 1 2", module="dream.maximize", symbol="maximize"),
    _dream("maximize", "Activation maximization", "Optimizes images to excite units, channels or classes.",
        source="Erhan et al., 2009", study="dreams.dream_units",
        example="--objectives conv2[7] 3", module="dream.maximize", view="dreams"),
    _technique("inversions", "Inversion", summary="what each layer still knows of an image",
        section="dreams", module="analysis.studies.inversion", shows_inputs=True,
        rungs=_rungs(samples=(6, 4, 2, 2, 1), layers=(5, 5, 5, 3, 3), steps=(200, 200, 200, 80, 40))),
    _dream("invert", "Inversion",
        "Reconstructs images from a layer's activations alone: what is blurred or lost, the layer no longer "
        "represents.",
        source="Mahendran and Vedaldi, 2015", tags=("inversion", "inversions"), study="inversion.invert_layers",
        samples=4, example="--layer conv1 conv2", module="dream.inversion"),
    _dream("deep_dream", "DeepDream", "Amplifies in a photograph what a layer detects in it.",
        source="Mordvintsev et al., 2015", tags=("deep_dream",), study="dreams.deep_dream_of",
        samples=2, example="--layer conv2", module="dream.deep_dream"),
    _dream("style_transfer", "Style transfer", "Renders the content of one image in the style of another.",
        source="Gatys et al., 2016", tags=("style",), study="dreams.transfer_style",
        example="--content photo.jpg --style painting.jpg", module="dream.style_transfer"),
    _dream("fool", "Fooling images",
        "Evolves images that mean nothing to people until the model is confident of a class: confidence does not show "
        "that an image resembles the training data.",
        source="Nguyen et al., 2015", tags=("fooling",), section="adversarial", study="dreams.fooling_images",
        module="dream.fooling_images",
        needs=("classes",), cost="generations"),
    ViewEntry("adversarial", "Adversarial samples",
        "Each column is a sample, its adversarial counterpart, and their difference, magnified. The smaller the "
        "difference relative to the sample, the closer the samples lie to the decision boundaries.",
        cost="at most `attack_steps` steps of the attack on the probe's samples", section="adversarial",
        module="callbacks.adversarial", symbol="Adversarial", tags=("adversarial",)),
    _technique("attacks", "Attacks compared",
        "The same samples under several attacks: to people they look unchanged, to the model they do not. DeepFool "
        "searches for the smallest perturbation, FGSM and PGD for any within epsilon.",
        summary="how small a change alters the prediction", section="adversarial", module="analysis.studies.attacks",
        tags=("attacks",), needs=("classes", "pixels"), shows_inputs=True,
        rungs=_rungs(samples=(8, 4, 4, 2), steps=(20, 20, 10, 5), ascent=(100, 100, 40, 20))),
    _attack("pgd", "PGD", "Maximizes the loss by projected gradient steps within epsilon of the sample.",
        source="Madry et al., 2018", module="adversarial.gradient_attacks", view="adversarial", unit="linf",
        cost="steps"),
    _attack("apgd", "APGD",
        "Maximizes the loss within epsilon by gradient steps with momentum, halving the step size where progress ends.",
        source="Croce and Hein, 2020", module="adversarial.apgd", view="adversarial", unit="linf", cost="steps"),
    _attack("fgsm", "FGSM", "Moves every pixel by epsilon in the direction of the gradient's sign, once.",
        source="Goodfellow et al., 2015", module="adversarial.gradient_attacks", view="adversarial", unit="linf",
        cost=2),
    _attack("deepfool", "DeepFool", "Crosses the nearest decision boundary by repeated linear approximation.",
        source="Moosavi-Dezfooli et al., 2016", module="adversarial.minimum_norm", view="adversarial",
        cost=15),  # about five passes in each of about three steps
    _attack("carlini_wagner", "Carlini and Wagner",
        "Minimizes the L2 norm of the perturbation together with a penalty for the true class.",
        source="Carlini and Wagner, 2017", module="adversarial.carlini_wagner", cost="steps"),
    _attack("fab", "FAB",
        "Steps onto the linearized boundary to one class after the other and back toward the sample, to keep the "
        "perturbation short.",
        source="Croce and Hein, 2020", module="adversarial.fast_adaptive_boundary", view="adversarial", unit="linf",
        cost="steps"),
    _attack("gradient_ascent", "Gradient ascent", "Climbs the cross-entropy loss of the sample's class, without bound.",
        module="adversarial.gradient_attacks", view="adversarial", cost="steps"),
    _attack("one_pixel", "One-pixel attack", "Changes a few pixels at will, chosen by differential evolution.",
        source="Su, Vargas and Sakurai, 2019", module="adversarial.one_pixel", needs=("classes", "image"),
        unit="pixels", cost="generations"),
    _attack("square", "Square attack",
        "Changes random squares within epsilon and keeps what raises the loss, without gradients.",
        source="Andriushchenko et al., 2020", module="adversarial.square_attack", needs=("classes", "image"),
        unit="linf", cost="queries"),
    _attack("auto_attack", "AutoAttack",
        "Runs APGD, targeted APGD, FAB and Square one after the other, each on the samples that those before left.",
        source="Croce and Hein, 2020", module="adversarial.attack_ensemble", unit="linf", cost="steps"),
    _attack("minimum_epsilon", "Minimum epsilon",
        "Finds each sample's smallest epsilon at which another attack succeeds, by bisection.",
        study="", module="adversarial.minimum_norm", needs=("classes", "attack"), cost="steps"),
    _attack("transfer", "Transfer attack",
        "Attacks a surrogate model and tries the perturbed samples on the model itself.",
        source="Papernot et al., 2016", study="", module="adversarial.transfer",
        needs=("classes", "attack", "surrogate"),
        cost="steps"),
    _technique("epsilons", "Robustness", summary="accuracy under attack, and which simple defenses help",
        section="adversarial", module="analysis.studies.robustness", needs=("classes", "pixels"),
        rungs=_rungs(samples=(128, 64, 32, 16, 8), ensemble=(16, 4, 0, 0, 0), around=(16, 8, 4, 4, 2),
                     directions=(1000, 500, 200, 100, 50), steps=(10, 10, 10, 10, 5))),
    _robustness("epsilons", "Accuracy under attack",
        "Plots the share of samples that stay correct under attack against epsilon: without adversarial training it "
        "falls within a few 255ths; a curve that never falls suggests that the attack does not work.",
        tags=("robustness/epsilon", "epsilon", "epsilons"), study="attacked_accuracy.accuracy_curve", samples=128,
        example="--epsilons 0 4/255 8/255", module="robustness.defenses", symbol="epsilon_curve",
        needs=("classes", "gradient"), cost="steps"),
    _robustness("robust_accuracy", "Robust accuracy",
        "Measures the share of samples that stay correct under AutoAttack, beside clean accuracy: the figure by which "
        "robust models are compared. On few samples it is rough.",
        source="Croce and Hein, 2020", tags=("robustness/robust_accuracy", "robust_accuracy"),
        study="attacked_accuracy.robust_accuracy", example="--epsilon 8/255", module="adversarial.attack_ensemble",
        symbol="auto_attack", needs=("classes", "gradient"), cost="steps"),
    _robustness("random_directions", "Random directions",
        "Measures the share of random directions, as long as an attack's perturbation, that change the class: near "
        "zero, noise would not find adversarial samples.",
        tags=("robustness/sphere", "random_directions"), study="robustness.changed_by_chance",
        example="--radius 2", module="robustness.random_directions", cost="directions"),
    _robustness("defenses", "Simple defenses",
        "Compares accuracy on samples and on their adversarial counterparts when the input is filtered first: a "
        "defense that helps raises the second without lowering the first.",
        tags=("robustness/defenses", "defenses"), study="robustness.defended_accuracy",
        samples=128, example="--epsilon 8/255", module="robustness.defenses"),
    _technique("landscape", "Loss landscape", summary="how flat the loss is around the trained weights",
        section="adversarial", module="analysis.studies.robustness", needs=("classes", "labels"),
        rungs=_rungs(samples=(64, 16, 8, 8, 4), points=(9, 9, 9, 5, 5))),
    _robustness("loss_landscape", "Loss landscape",
        "Evaluates the loss in a random plane through the trained weights, filter by filter as far as their norm: a "
        "wide flat valley is usual of nets that generalize.",
        source="Li et al., 2018", tags=("robustness/loss_landscape", "loss_landscape", "landscape"),
        study="robustness.loss_landscape", samples=64, example="--points 7",
        module="analysis.studies.robustness", needs=("classes", "labels"), cost=121),
    _technique("corruptions", "Everyday corruptions", summary="what noise, blur, weather and digital corruptions cost",
        section="corruptions", module="analysis.studies.robustness",
        needs=("classes", "labels", "pixels"),
        rungs=_rungs(samples=(128, 64, 32, 16, 8))),
    _robustness("corruptions", "Everyday corruptions",
        "Measures the error under noise, blur, weather and digital corruptions, by severity: those that raise it most "
        "show what the model relies on.",
        source="Hendrycks and Dietterich, 2019", tags=("corruptions",), section="corruptions",
        study="robustness.corruption_errors", samples=256, example="--kinds gaussian_noise fog",
        module="robustness.corruption_error", symbol="compare_corruption_error", needs=("classes", "labels", "pixels"),
        cost=75),  # fifteen corruptions of five severities
    _technique("perturbations", "Perturbation stability", summary="how often small steps change the class",
        section="corruptions", module="analysis.studies.stability", needs=("classes", "pixels"),
        rungs=_rungs(samples=(32, 16, 8, 4, 2))),
    _robustness("perturbation_stability", "Perturbation stability",
        "Measures how often the predicted class changes along small steps of noise, blur, snow, brightness and motion: "
        "a steady network seldom flips, even where it is wrong.",
        source="Hendrycks and Dietterich, 2019",
        tags=("perturbations", "perturbation_stability"), section="corruptions",
        study="stability.flip_probabilities", samples=32, example="--kinds translate rotate",
        module="robustness.stability", needs=("classes", "pixels"), cost=320),  # ten kinds of about 32 frames
    _technique("biases", "Shape or texture", summary="whether it decides by shape or by texture",
        section="corruptions", module="analysis.studies.shape_bias", needs=("classes", "cues")),
    _robustness("shape_bias", "Shape or texture",
        "Measures the share of images with the shape of one class and the texture of another that are decided by "
        "shape: people are near 1, networks trained on photographs alone mostly follow the texture.",
        source="Geirhos et al., 2019", tags=("robustness/shape_bias", "shape_bias", "biases", "cue_conflict"),
        section="corruptions", study="shape_bias.shape_or_texture", example="--conflicts cue_conflicts/",
        module="robustness.shape_bias", needs=("classes", "cues")),
)
"""Every method, technique and view, in the order in which a report shows them; a new one is a new row."""
# fmt: on
