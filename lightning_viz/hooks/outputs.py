"""What a model's output means: which tensor of it holds scores, of what, and whether as probabilities."""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_viz.errors import InvalidArgumentError, NoClassesError, OutputError
from lightning_viz.hooks.detection import detections_of
from lightning_viz.hooks.pytree import Path, part_at

OutputKind = Literal[
    "scores", "classifier", "binary", "multi-label", "regression", "features", "tokens", "dense", "images"
]

CLASS_LOSSES = frozenset(["cross_entropy", "nll_loss", "multi_margin_loss", "CrossEntropyLoss", "NLLLoss"])
BINARY_LOSSES = frozenset(["binary_cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss"])
MULTI_LABEL_LOSSES = frozenset(["multilabel_margin_loss", "multilabel_soft_margin_loss"])
REGRESSION_LOSSES = frozenset(
    ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss", "gaussian_nll_loss"]
)
_FIELDS = ("logits", "out")  # of Hugging Face's outputs, of torchvision's segmentation
_VIEWS = frozenset(
    f"{name}Backward{number}"
    for name in (
        *("View", "UnsafeView", "ReshapeAlias", "Alias", "Squeeze", "Unsqueeze", "Select", "Slice", "Clone", "ToCopy"),
        *("Transpose", "T", "Permute", "Expand", "AsStrided", "Clamp", "ClampMin", "Unbind", "Split"),
    )
    for number in (0, 1, 2)
)
_SQUASHING = {"SoftmaxBackward0": "softmax", "SigmoidBackward0": "sigmoid"}
_METRIC = re.compile("triplet|contrast|supcon|ntxent|proxy|arcface|embedding|ranking|cosine", re.IGNORECASE)
_CLOSE = 1e-3  # of 1: what the sum of a sample's probabilities may differ by


@dataclass(frozen=True)
class OutputMeaning:
    """What a model's output means.

    Attributes:
        kind: of what the scores are: of classes that exclude one another (``"classifier"``; ``"scores"`` if that is
            assumed, because nothing is known of the model), of two of them by one number (``"binary"``), of classes
            each by itself (``"multi-label"``); numbers (``"regression"``: one, ``"features"``: several); classes at
            each position of a sequence (``"tokens"``) or of a map (``"dense"``); or an image, a series or a volume
            (``"images"``).
        path: keys of the scores in what the model returns; empty where it returns them alone.
        squashed: ``"softmax"`` or ``"sigmoid"`` if they are probabilities; empty if they are logits or plain numbers.
    """

    kind: OutputKind = "scores"
    path: Path = ()
    squashed: str = ""

    @property
    def classifies(self) -> bool:
        """Whether each sample is told a class, or several."""
        return self.kind in ("scores", "classifier", "binary", "multi-label")

    @property
    def unit(self) -> str:
        """Of a score: ``"probability"``, ``"logit"`` or ``"output"``."""
        if self.kind in ("regression", "features", "images"):
            return "output"
        return "probability" if self.squashed else "logit"


@dataclass(frozen=True)
class OutputKnowledge:
    """What is known of a model that tells what its output means.

    Attributes:
        loss: name of the loss that its step calls, ``"cross_entropy"``; empty if none was seen.
        squashed: ``"softmax"`` or ``"sigmoid"`` if the output was seen to come out of one.
        logarithm: whether the loss is given the logarithm of the output.
        field: keys of the tensor that the loss is given, in what the model returns; None if not seen.
        direct: whether the loss is given a number for each number of the output, not similarities of samples, say.
        labels: ``"classes"``, ``"binary"`` (zeros and ones), ``"several"`` (multi-hot), ``"numbers"``, ``"pairs"``
            (which samples are alike), ``"masks"``, ``"images"``, ``"inputs"`` (an autoencoder's) or ``"nothing"``
            (noise, say, that the step makes); empty if there are none.
        named: whether the classes' names are known.
    """

    loss: str = ""
    squashed: str = ""
    logarithm: bool = False
    field: Path | None = None
    direct: bool = True
    labels: str = ""
    named: bool = False


@dataclass
class _Entry:
    knowledge: OutputKnowledge
    meaning: OutputMeaning | None = None
    form: tuple[int, ...] = ()


_KNOWN: WeakKeyDictionary[nn.Module, _Entry] = WeakKeyDictionary()


def keep_knowledge(model: nn.Module, knowledge: OutputKnowledge | None) -> None:
    """Have all that explain a model go by what is known of it; its output's meaning is decided once, at the next pass.

    Args:
        model: any.
        knowledge: of its step, labels and class names; None forgets it.
    """
    entry = _KNOWN.get(model)
    if knowledge is None:
        _KNOWN.pop(model, None)
    elif entry is None or entry.knowledge != knowledge:
        _KNOWN[model] = _Entry(knowledge)


def knowledge_of(model: nn.Module) -> OutputKnowledge | None:
    """What is known of a model, see `keep_knowledge`; None if nothing is."""
    entry = _KNOWN.get(model)
    return None if entry is None else entry.knowledge


class SquashingWatch(TorchFunctionMode):
    """Sees during one pass which results come out of a softmax or a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self._results: deque[tuple[str, Tensor]] = deque(maxlen=4)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass a function on."""
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("softmax", "sigmoid") and isinstance(result, Tensor):
            self._results.append((func.__name__, result))
        return result

    def squashing(self, scores: Tensor) -> str:
        """What scores come out of; empty if of neither."""
        return next((name for name, result in self._results if _same_memory(scores, result)), "")


def watching_squashing(model: nn.Module, *, differentiates: bool) -> AbstractContextManager[SquashingWatch | None]:
    """Context of a pass that may have to tell probabilities from logits.

    Args:
        model: to be run in it.
        differentiates: whether the pass has a graph, which tells.
    """
    entry = _KNOWN.get(model)
    if differentiates or (entry is not None and entry.meaning is not None):
        return nullcontext()
    # a function mode keeps attention off its fast path, whose results differ in the last digits
    fast = any(isinstance(module, (nn.MultiheadAttention, nn.TransformerEncoderLayer)) for module in model.modules())
    return nullcontext() if fast else SquashingWatch()


def interpret(model: nn.Module, outputs: Any, watch: SquashingWatch | None = None) -> OutputMeaning:
    """What the output of a pass means: by what is known of the model, else by its form alone.

    Args:
        model: that returned it.
        outputs: what it returned.
        watch: of the pass, if there was one.

    Raises:
        OutputError: it holds no scores, or several tensors that could be.
    """
    entry = _KNOWN.get(model)
    knowledge = None if entry is None else entry.knowledge
    path = scores_path(outputs, knowledge)
    scores = part_at(outputs, path)
    form = (scores.dim(), *scores.shape[1:2])
    if entry is not None and entry.meaning is not None and (entry.meaning.path, entry.form) == (path, form):
        return entry.meaning
    meaning = OutputMeaning(_kind(scores, path, knowledge), path, _squashed(model, scores, path, knowledge, watch))
    if entry is not None:
        entry.meaning, entry.form = meaning, form
    return meaning


def form_meaning(scores: Tensor, path: Path = ()) -> OutputMeaning:
    """What scores mean by their form alone, where nothing is known of the model that returned them."""
    return OutputMeaning(_kind(scores, path, None), path, _squashing_in_graph(scores))


def batch_meaning(scores: Tensor, path: Path, knowledge: OutputKnowledge | None) -> OutputMeaning:
    """What the scores of one batch mean, whose pass was not watched and has no graph: the same on every process.

    Args:
        scores: of the batch.
        path: where they were in what the model returned.
        knowledge: of the model, as far as the step and this batch tell.
    """
    squashed = _told_squashing(path, knowledge) or _squashing_in_rows(scores)
    return OutputMeaning(_kind(scores, path, knowledge), path, squashed)


def scores_path(outputs: Any, knowledge: OutputKnowledge | None = None) -> Path:
    """Where the scores are in what a model returned.

    A tensor is the scores itself; of several, in this order: the field ``logits``, the field ``out``, the one that the
    step's loss was seen to be given, the only floating-point ``[N, K]`` or ``[N, K, H, W]``. Scalars are losses.

    Args:
        outputs: what the model returned.
        knowledge: of the model.

    Raises:
        OutputError: none, or several could be; the message lists the fields.
    """
    if isinstance(outputs, Tensor) and outputs.is_floating_point():
        return ()
    if detections_of(outputs) is not None:
        raise OutputError("the model is a detector, which scores boxes and no image: give target='box[0]', or forward=")
    fields = [(path, x) for path, x in _tensors(outputs) if x.is_floating_point() and x.dim() > 0]
    for name in _FIELDS:
        for path, _ in fields:
            if _name(outputs, path) == name:
                return path
    if knowledge is not None and knowledge.loss not in REGRESSION_LOSSES:
        seen = next((path for path, _ in fields if path == knowledge.field), None)
        if seen is not None:
            return seen
    likely = [path for path, x in fields if x.dim() in (2, 4)]
    if len(likely) == 1 or len(fields) == 1:
        return likely[0] if likely else fields[0][0]
    if not fields:
        raise no_scores(outputs)
    listed = ", ".join(f"{''.join(f'[{key!r}]' for key in path)} {list(x.shape)}" for path, x in fields[:8])
    raise OutputError(
        f"the model returns several tensors, {listed}: which are the scores? Give "
        "forward=lambda model, inputs: model(inputs)[...], which picks them, or a function of the output as target"
    )


def class_scores(scores: Tensor, meaning: OutputMeaning, mask: Tensor | None = None) -> Tensor:
    """Scores ``[N, K]``, summed over places where there are any; of a single logit z those of two classes, -z and z.

    Args:
        scores: as the model returns them, ``[N]`` or ``[N, K, ...]``.
        meaning: of them.
        mask: the places that count, ``[H, W]`` or ``[N, H, W]``; all if omitted.

    Raises:
        InvalidArgumentError: the mask does not fit the output.
    """
    if mask is not None:
        shape = list(scores.shape)
        if scores.dim() != 4 or list(mask.shape) not in (shape[2:], [shape[0], *shape[2:]]):
            raise InvalidArgumentError(f"the mask is {list(mask.shape)}, the output {shape}: give [H, W] of it")
        mask = mask.clone() if mask.is_inference() else mask  # to be kept for a backward
        scores = scores * mask.to(scores).unsqueeze(-3)
    table = scores.unsqueeze(1) if scores.dim() == 1 else scores.flatten(2).sum(2) if scores.dim() > 2 else scores
    return two_classes(table, meaning) if meaning.kind == "binary" and table.shape[1] == 1 else table


def two_classes(table: Tensor, meaning: OutputMeaning) -> Tensor:
    """The scores of classes 0 and 1, ``[N, 2]``, of one number ``[N, 1]``: -z and z, or 1 - p and p."""
    return torch.cat([1 - table if meaning.squashed else -table, table], 1)


def class_logits(scores: Tensor, meaning: OutputMeaning) -> Tensor:
    """Logits ``[N, K]`` of two classes or more, the softmax of which are a classifier's probabilities.

    A single logit z is two, -z/2 and z/2; of probabilities they are the logarithms.

    Args:
        scores: as the model returns them, ``[N]`` or ``[N, K, ...]``.
        meaning: of them.
    """
    table = class_scores(scores, replace(meaning, kind="scores"))
    single = table.shape[1] == 1 and meaning.kind in ("scores", "binary")
    if not meaning.squashed or scores.dim() > 2:
        return torch.cat([-table / 2, table / 2], 1) if single else table
    if meaning.squashed == "sigmoid" and not single:
        return torch.logit(table, torch.finfo(table.dtype).eps)
    shares = two_classes(table, meaning) if single else table
    return shares.clamp_min(torch.finfo(shares.dtype).tiny).log()


def class_probabilities(scores: Tensor, meaning: OutputMeaning) -> Tensor:
    """The probability ``[N, K]`` of each class of a classifier; of a multi-label one each class's by itself.

    Args:
        scores: as the model returns them, ``[N]`` or ``[N, K]``.
        meaning: of them.
    """
    table = class_scores(scores.float(), replace(meaning, kind="scores"))
    if table.shape[1] == 1:
        share = table if meaning.squashed else table.sigmoid()
        return torch.cat([1 - share, share], 1)
    if meaning.squashed:
        return table
    return table.sigmoid() if meaning.kind == "multi-label" else table.softmax(1)


def known_labels(labels: Tensor, count: int) -> Tensor:
    """Labels ``[N]`` with -1 in place of those that name none of so many classes.

    Where labels begin at 1, so that the last of them names no class, none is known.

    >>> known_labels(torch.tensor([0, 255, 3, -1]), 4).tolist()
    [0, -1, 3, -1]
    >>> known_labels(torch.tensor([1, 4, 3]), 4).tolist()
    [-1, -1, -1]
    """
    inside = (labels >= 0) & (labels < count)
    if labels.numel() and int(labels.min()) >= 1 and int(labels.max()) == count:
        inside = torch.zeros_like(inside)
    return labels.where(inside, -1)


def no_scores(outputs: Any) -> OutputError:
    """The error of an output without scores."""
    return OutputError(
        f"the model returned {type(outputs).__name__} without a floating-point tensor [N, classes]: give a function "
        "from the output to one scalar per sample as target, or forward="
    )


def no_classes(scores: Tensor, meaning: OutputMeaning) -> NoClassesError:
    """The error of a class that goes without saying, where the output is not of classes."""
    shape, what = list(scores.shape), {3: "a series", 5: "a volume"}.get(scores.dim(), "an image")
    what = "numbers" if meaning.kind == "features" else what
    how = "target='2' (one of them)" if meaning.kind == "features" else "target='conv2[7]' (a channel)"
    return NoClassesError(
        f"the model returns {what} {shape}, no scores of classes as far as is known, so what to explain must be named: "
        f"give {how} or a function"
    )


def no_position(scores: Tensor) -> NoClassesError:
    """The error of a class without a position, where there is one at each."""
    return NoClassesError(
        f"the model returns {list(scores.shape)}, scores of {scores.shape[-1]} classes (the last axis) at each of "
        f"{scores.shape[1]} positions: name the position, target='token[0]' or 'token[0,3]' (class 3 there)"
    )


def _kind(scores: Tensor, path: Path, knowledge: OutputKnowledge | None) -> OutputKind:
    """Of what scores are."""
    if scores.dim() > 1 and knowledge is not None and knowledge.labels == "inputs":
        return "images" if scores.dim() > 2 else "features"
    if scores.dim() == 3:
        return "tokens"
    if knowledge is None:
        return "dense" if scores.dim() > 3 else "scores"
    loss, labels, name = knowledge.loss, knowledge.labels, str(path[-1]) if path else ""
    of_classes = loss in CLASS_LOSSES | BINARY_LOSSES | MULTI_LABEL_LOSSES
    if scores.dim() > 3:
        if loss in CLASS_LOSSES or labels == "masks" or (name in _FIELDS and labels != "images"):
            return "dense"
        if of_classes and labels != "images":
            return "dense"
        return "images" if loss in REGRESSION_LOSSES or labels == "images" or not knowledge.direct else "dense"
    if scores.dim() == 1 or scores.shape[1] == 1:
        if labels == "nothing" or loss in REGRESSION_LOSSES or (labels == "numbers" and loss not in BINARY_LOSSES):
            return "regression"
        return "binary" if loss in BINARY_LOSSES or labels == "binary" else "regression"
    if not knowledge.direct or labels == "pairs" or _METRIC.search(loss):
        return "features"
    if loss in MULTI_LABEL_LOSSES or loss in BINARY_LOSSES or labels == "several":
        return "multi-label"
    if of_classes or labels in ("classes", "binary"):
        return "classifier"
    if loss in REGRESSION_LOSSES or labels == "numbers":
        return "features"
    return "classifier" if knowledge.named or name == "logits" else "scores"


def _squashed(
    model: nn.Module,
    scores: Tensor,
    path: Path,
    knowledge: OutputKnowledge | None,
    watch: SquashingWatch | None,
) -> str:
    """``"softmax"`` or ``"sigmoid"`` if scores are probabilities: by graph, pass or step, else by the rows."""
    found = _squashing_in_graph(scores) or ("" if watch is None else watch.squashing(scores))
    if found:
        return found
    if told := _told_squashing(path, knowledge):
        return told
    unseen = scores.grad_fn is None and watch is None
    hidden = unseen or any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
    return _squashing_in_rows(scores) if hidden else ""


def _told_squashing(path: Path, knowledge: OutputKnowledge | None) -> str:
    """What scores come out of, according to the step."""
    if knowledge is None:
        return ""
    if knowledge.squashed and not path:
        return knowledge.squashed
    if knowledge.loss == "binary_cross_entropy":
        return "sigmoid"
    return "softmax" if knowledge.logarithm and knowledge.loss in ("nll_loss", "NLLLoss") else ""


def _squashing_in_rows(scores: Tensor) -> str:
    """``"softmax"`` if the rows of several scores are probabilities that sum to 1."""
    if scores.dim() != 2 or scores.shape[1] < 2:
        return ""
    rows = scores.detach().float()
    return "softmax" if bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < _CLOSE).all()) else ""


def _squashing_in_graph(scores: Tensor) -> str:
    """What scores come out of, through views and copies, according to autograd's graph."""
    node: Any = scores.grad_fn
    while node is not None:
        name = node.name()
        if name in _SQUASHING:
            return _SQUASHING[name]
        if name not in _VIEWS or not node.next_functions:
            return ""
        node = node.next_functions[0][0]
    return ""


def _tensors(structure: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """All tensors of an output with their paths, in order."""
    if isinstance(structure, Tensor):
        yield path, structure
    elif isinstance(structure, Mapping):
        for key, part in structure.items():
            yield from _tensors(part, (*path, key))
    elif isinstance(structure, (tuple, list)):
        for index, part in enumerate(structure):
            yield from _tensors(part, (*path, index))
    elif dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        for field in dataclasses.fields(structure):
            yield from _tensors(getattr(structure, field.name), (*path, field.name))


def _name(outputs: Any, path: Path) -> Any:
    """The name of a field, also of a named tuple."""
    if not path:
        return ""
    names = getattr(part_at(outputs, path[:-1]), "_fields", None)
    return names[path[-1]] if names is not None and isinstance(path[-1], int) else path[-1]


def _same_memory(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are views of the same values."""
    try:
        return first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr() != 0
    except (RuntimeError, NotImplementedError):  # sparse, or without memory of its own
        return False
