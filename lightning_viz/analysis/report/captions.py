"""How to read what a report shows: for each kind of picture its section, a title, and two sentences."""

from __future__ import annotations

from dataclasses import dataclass

SECTIONS = {
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
"""In the order of the lectures: from the weights to what breaks them."""

OTHERS = "others"


@dataclass(frozen=True)
class Reading:
    """How to read one kind of picture.

    Attributes:
        section: a key of `SECTIONS`.
        title: of the pictures of this kind.
        sentences: two of them; none where each picture has to speak for itself.
    """

    section: str
    title: str
    sentences: str = ""


def reading_of(kind: str) -> Reading:
    """How to read a kind of picture; of an unknown one, only where it stands.

    Args:
        kind: of `kind_of`.
    """
    return READINGS.get(kind) or Reading(OTHERS, kind)


def kind_of(tag: str) -> str:
    """The longest beginning of a tag that is known, else its first part.

    Args:
        tag: its parts separated by ``/``; or the name of a technique.

    >>> kind_of("saliency/gradient/classes"), kind_of("grad_cam/conv2"), kind_of("mine/own")
    ('saliency/gradient', 'grad_cam', 'mine')
    """
    tag = _TECHNIQUES.get(tag, tag)
    parts = tag.split("/")
    beginnings = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((one for one in beginnings if one in READINGS), parts[0])


_RANDOMIZED = "Near zero rank correlation with an untrained network's maps means that they show what was learned."

READINGS = {
    "compared/epsilon": Reading(
        "compared",
        "Accuracy under attack",
        "The share of samples that stay right when an attack may move every pixel by epsilon, of all models on equal "
        "samples. The curve further right belongs to the model that is harder to fool, if they start alike.",
    ),
    "compared/corruptions": Reading(
        "compared",
        "Corruption errors",
        "The first model's error by corruption and severity, and beside it each model's corruption error, the first "
        "one's being 1. Below 1 a model bears that corruption better; what both have wrong without it counts, too.",
    ),
    "compared/shape_bias": Reading(
        "compared",
        "Shape or texture",
        "Of the same images, with the shape of one class and the texture of another, the share that each model decides "
        "by shape. People are near one; networks that only saw photographs mostly follow the texture.",
    ),
    "filters": Reading(
        "parameters",
        "What the first layer looks for",
        "Each tile is a filter that the layer slides over the image: edges, blobs and colors say that it has learned. "
        "Noise that does not change over the steps says that it has not, or has more filters than it needs.",
    ),
    "hyperplanes": Reading(
        "parameters",
        "Where units switch",
        "Each dark line is where one unit changes its sign, and the pale ground is the class predicted there. Look for "
        "how the lines come to lie along the boundary between the classes, and for units that do no work.",
    ),
    "activations": Reading(
        "activations",
        "What samples excite",
        "Each row is a sample and each column a channel, red where it is active and blue where it is below zero. A "
        "channel that looks alike for all samples tells nothing of them.",
    ),
    "statistics": Reading(
        "activations",
        "How activations are distributed",
        "Each hill is the histogram of a layer's activations at one step, the latest in front. Hills that wander off "
        "or collapse onto zero tell of exploding values and dead units.",
    ),
    "top_samples": Reading(
        "activations",
        "What excites each channel most",
        "Each block is one channel with the samples, of all validation data, that drive it highest. What they have in "
        "common is the channel's best short description.",
    ),
    "embedding": Reading(
        "embeddings",
        "Samples as layers see them",
        "Each point is a sample, and those near each other are alike to the layer. From layer to layer the classes "
        "should part; distances between groups, and their sizes, mean little in t-SNE.",
    ),
    "attributions": Reading(
        "attribution",
        "All methods side by side",
        "Each method explains the same samples, so agreement between unlike methods is evidence and a method alone is "
        "not. The numbers tell which of them can be believed.",
    ),
    "grad_cam": Reading(
        "attribution",
        "Grad-CAM: where the evidence lies",
        "The heat shows where, seen from the layer, the evidence for the class lies: bright on the object is right, on "
        f"the background suspicious. {_RANDOMIZED}",
    ),
    "grad_cam_plus_plus": Reading(
        "attribution",
        "Grad-CAM++: where the evidence lies",
        "As Grad-CAM, but every place counts by how strongly it speaks for the class, so that several objects show. "
        f"{_RANDOMIZED}",
    ),
    "hires_cam": Reading(
        "attribution",
        "HiResCAM: where the evidence lies",
        "As Grad-CAM, but gradients are not averaged over the map: only places that the class's score was made from "
        f"are bright. {_RANDOMIZED}",
    ),
    "layer_cam": Reading(
        "attribution",
        "LayerCAM: where the evidence lies",
        "As Grad-CAM, but each place is weighed by its own positive gradient, so that early layers show fine maps too. "
        f"{_RANDOMIZED}",
    ),
    "score_cam": Reading(
        "attribution",
        "Score-CAM: where the evidence lies",
        "Each channel counts by how much the class gains when the image is masked with it, and no gradient is needed. "
        f"{_RANDOMIZED}",
    ),
    "eigen_cam": Reading(
        "attribution",
        "EigenCAM: what the layer sees",
        "The first principal component of the layer's maps, whatever the class: what the layer attends to at all. "
        f"{_RANDOMIZED}",
    ),
    "saliency": Reading(
        "attribution",
        "Saliency: which pixels matter",
        f"Beside each input stands how much each of its pixels moves the class's score. {_RANDOMIZED}",
    ),
    "saliency/gradient": Reading(
        "attribution",
        "Gradient: which pixels matter",
        "The brighter a pixel, the more a small change of it moves the class's score; the raw gradient is noisy. "
        f"{_RANDOMIZED}",
    ),
    "saliency/smooth_grad": Reading(
        "attribution",
        "SmoothGrad: which pixels matter",
        "The brighter a pixel, the more a small change of it moves the class's score, on the mean over noisy copies. "
        f"{_RANDOMIZED}",
    ),
    "saliency/input_times_gradient": Reading(
        "attribution",
        "Input × gradient: what each pixel adds",
        "Red pixels speak for the class and blue ones against it, to first order; a pixel of value zero adds nothing. "
        f"{_RANDOMIZED}",
    ),
    "saliency/integrated_gradients": Reading(
        "attribution",
        "Integrated gradients: what each pixel adds",
        "Red pixels speak for the class and blue ones against it, and together they make up the whole change of the "
        f"score from the baseline. {_RANDOMIZED}",
    ),
    "saliency/guided_backprop": Reading(
        "attribution",
        "Guided backpropagation: patterns in the image",
        "Sharp because only positive evidence is passed back, which makes it follow the image's edges more than the "
        f"class. {_RANDOMIZED}",
    ),
    "saliency/deconvolution": Reading(
        "attribution",
        "Deconvolution: patterns in the image",
        "What a layer's activity looks like when it is passed back to the image, whatever the ReLUs shut on the way. "
        f"{_RANDOMIZED}",
    ),
    "saliency/guided_grad_cam": Reading(
        "attribution",
        "Guided Grad-CAM: patterns where the evidence lies",
        f"Guided backpropagation's fine pattern, kept only where Grad-CAM finds evidence for the class. {_RANDOMIZED}",
    ),
    "occlusion": Reading(
        "attribution",
        "Occlusion: what the network cannot do without",
        "Each place tells how far the class's score falls when a patch covers it. It takes no gradient and so is a "
        "judge over the other maps, as coarse as its patch.",
    ),
    "predictions": Reading(
        "predictions",
        "Predictions beside the truth",
        "Each row is a sample: the input, the truth, the prediction, and where the two differ. Errors along edges are "
        "common and mild; whole regions of a wrong class are not.",
    ),
    "dreams": Reading(
        "dreams",
        "What units and classes want to see",
        "Each image was made from scratch to excite what is written under it, and shows what the network looks for. "
        "Parts that recur in all of them are the network's habits, not the class.",
    ),
    "inversion": Reading(
        "dreams",
        "What each layer still knows",
        "Each image was made from nothing but a layer's activations for the sample. What is blurred or lost in it, the "
        "layer no longer knows; deep layers keep the object and forget its place.",
    ),
    "fooling": Reading(
        "adversarial",
        "Images of nothing",
        "The network is sure of a class where a person sees none. High confidence is therefore no sign that an image "
        "is like those it was trained on.",
    ),
    "adversarial": Reading(
        "adversarial",
        "How little changes the network's mind",
        "Each column is a sample as it is, its adversarial twin, and the difference magnified. The shorter the "
        "difference in relation to the sample, the nearer the samples lie to the network's boundaries.",
    ),
    "attacks": Reading(
        "adversarial",
        "Attacks compared",
        "The same samples under several attacks: the twins look alike to us and not to the network. DeepFool looks for "
        "the shortest way, FGSM and PGD for any way within epsilon.",
    ),
    "robustness": Reading(
        "adversarial",
        "How robust it is",
        "A curve that falls at a small epsilon belongs to a network that small changes fool. What random directions do "
        "not and an attack does is no accident of noise.",
    ),
    "robustness/epsilon": Reading(
        "adversarial",
        "Accuracy under attack",
        "The share of samples that stay right when an attack may move every pixel by epsilon. A sudden fall at a few "
        "255ths is usual without adversarial training; a curve that never falls hints at an attack that does not work.",
    ),
    "robustness/sphere": Reading(
        "adversarial",
        "Random directions, equally far",
        "Around each sample, the share of random directions that change the class at the attack's distance or beyond. "
        "Near zero means that adversarial directions are rare, and that noise would not find them.",
    ),
    "robustness/defenses": Reading(
        "adversarial",
        "Simple defenses",
        "Accuracy on samples and on their twins when the input is changed before the network sees it. A defense that "
        "helps lifts the lower bar without shortening the upper; an attack that knows of it may still pass.",
    ),
    "corruptions": Reading(
        "corruptions",
        "Under everyday corruptions",
        "The error under noise, blur, weather and digital faults, by severity. Look for the kinds in which it rises "
        "far above the error on clean samples: they show what the network leans on.",
    ),
    "robustness/shape_bias": Reading(
        "corruptions",
        "Shape or texture",
        "Of images with the shape of one class and the texture of another, the share decided by shape. People are near "
        "one; networks that only saw photographs mostly follow the texture.",
    ),
    "cue_conflict": Reading(
        "corruptions",
        "Shape or texture",
        "Images with the shape of one class and the texture of another: which of the two does the network follow? "
        "People mostly follow the shape, networks that only saw photographs mostly the texture.",
    ),
}
"""By the beginning of the tag, in the order in which a section shows them."""

_TECHNIQUES = {
    "attributions left out": "attributions",
    "inversions": "inversion",
    "epsilon": "robustness/epsilon",
    "epsilons": "robustness/epsilon",
    "random_directions": "robustness/sphere",
    "defenses": "robustness/defenses",
    "shape_bias": "robustness/shape_bias",
    "biases": "robustness/shape_bias",
}
"""Techniques, and what they measure, that are not called as what they draw."""
