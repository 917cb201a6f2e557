"""Models from outside (`outside_zoo.py`): what `default_views` draws of them while they train, and what `analyze` says.

Each model runs in a process of its own, on the CPU with one thread, for a few batches in two epochs: once without
views and once with `default_views()`, which must end in the same weights bit for bit; then its checkpoint is analyzed
by every view and technique. What was drawn, every warning, everything that was raised and the time of each part become
a table (``DIR/outside.md``, ``DIR/outside.json``). The last picture of every tag lies in ``DIR/NAME/pictures``, one of
each kind and more on a sheet: whether they are right is for a person to see. What is not as expected (kinds that were
drawn, raw errors) is printed, and the exit status is 1.

    pip install ".[dev,outside]"
    python benchmarks/outside_models.py [--only NAME ...] [--out DIR] [--no-analyze] [--limit SECONDS]
    python benchmarks/outside_models.py --out DIR --table    # of what was run before
"""

import argparse
import hashlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

EPOCHS = 2
FAULT = re.compile(
    r"(?P<view>\w+)(\(.*\))? failed at step \d+: (?P<cause>.*) \((training continues|the view is switched off.*)\)$"
)
NUMBER = re.compile(r"\d+(\.\d+)?")
RESULT = "result.json"

USUAL = frozenset(["filters", "activations", "grad_cam", "saliency", "embedding"])
"""Kinds of views that `default_views` draws of a model that takes images and tells classes."""

LESS = {
    "hf_clip": {"grad_cam", "saliency"},  # features: what to explain must be named
    "hf_bert": {"filters", "activations", "grad_cam", "saliency"},  # token ids have no gradient and no maps
    "vae": {"grad_cam", "saliency"},  # an image
    "diffusion": {"grad_cam", "saliency"},  # noise
    "simclr": {"grad_cam", "saliency"},  # features
    "gan": {"grad_cam"},  # a vector goes in
    "lstm": {"filters", "activations", "grad_cam"},
    "gnn": set(USUAL),  # graphs are no samples, its first layer has no filters; `analyze` refuses it
    "mlp_flattened": {"activations", "grad_cam"},
}
"""By model, what of this is left out, with the reason."""

RAW = re.compile(r"\b(Type|Value|Index|Key|Runtime|Attribute|NotImplemented)Error\b")


# --- In the process of one model.


class Record:
    """What is known of a model's run, on the disk after every part: a crash ends the process, not what it found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content: dict[str, Any] = {"seconds": {}, "exceptions": {}, "lines": {}, "others": {}}

    def write(self) -> None:
        (self.folder / RESULT).write_text(json.dumps(self.content, indent=1))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of the run: its time, its warnings and lines, and what it raises."""
        self.content["at"] = name
        self.write()
        started, lines = time.monotonic(), Lines()
        log = logging.getLogger("lightning_viz")
        log.addHandler(lines)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            except Exception as error:
                frames = [
                    frame for frame in traceback.extract_tb(error.__traceback__) if "lightning_viz" in frame.filename
                ]
                place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
                self.content["exceptions"][name] = [f"{type(error).__name__}: {error}", place]
                (self.folder / f"{name}.traceback.txt").write_text(traceback.format_exc())
            finally:
                log.removeHandler(lines)
        ours = [
            one for one in caught if str(one.message).startswith("lightning_viz") or "lightning_viz" in one.filename
        ]
        said = [f"{one.category.__name__}: {str(one.message).removeprefix('lightning_viz: ')}" for one in ours]
        others = [f"{one.category.__name__}: {one.message}" for one in caught if one not in ours]
        self.content["lines"][name] = dict(Counter([*said, *(f"info: {line}" for line in lines.lines)]))
        self.content["others"][name] = dict(Counter(others))
        self.content["seconds"][name] = round(time.monotonic() - started, 1)
        self.write()


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def run_model(name: str, folder: Path, *, analyzed: bool) -> None:
    """Train a model without and with views, and analyze its checkpoint."""
    import torch

    from lightning_viz import default_views

    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    record, digests, checkpoint = Record(folder), {}, folder / "last.ckpt"
    for part in ("bare", "views"):
        with record.part(part):
            views = default_views() if part == "views" else []
            digests[part], record.content["updates"] = train(name, folder, views, checkpoint)
    if len(digests) == 2:
        record.content["identical"] = digests["bare"] == digests["views"]
    record.content["drawn"] = pictures_of(folder / "board", folder / "pictures" / "views")
    record.write()
    if analyzed and checkpoint.exists():
        with record.part("analyze"):
            analyze_model(name, folder, checkpoint, record)
        pictures_of(folder / "analysis" / "tensorboard", folder / "pictures" / "analysis")
    record.content["at"] = "end"
    checkpoint.unlink(missing_ok=True)
    record.write()


def train(name: str, folder: Path, views: list[Any], checkpoint: Path) -> tuple[str, int]:
    """The digest of the weights after training, and the number of updates."""
    import pytorch_lightning as pl
    from outside_zoo import MODELS
    from pytorch_lightning.loggers import TensorBoardLogger

    pl.seed_everything(0, verbose=False)
    module, data = MODELS[name]()
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", callbacks=views, log_every_n_steps=1, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        logger=TensorBoardLogger(folder, "board", "") if views else False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    if views:
        trainer.save_checkpoint(checkpoint)
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest(), trainer.global_step


def analyze_model(name: str, folder: Path, checkpoint: Path, record: Record) -> None:
    """Every view and technique on the checkpoint."""
    from outside_zoo import MODELS

    from lightning_viz.analysis import analyze

    module, data = MODELS[name]()

    def progress(part: str, done: int, count: int) -> None:
        record.content["at"] = f"analyze, {part} ({done} of {count})"
        record.content.setdefault("parts", []).append([part, round(time.monotonic() - started, 1)])
        record.write()

    started = time.monotonic()
    analyze(checkpoint, model=module, data=data, out=folder / "analysis", name=name, samples=16, progress=progress)


def analysis_of(folder: Path) -> dict[str, Any]:
    """Of each part of an analysis the tags that it drew, its faults and its notes."""
    found = {}
    for path in sorted(folder.glob("findings/*/finding.json")):
        listed = json.loads(path.read_text())
        found[path.parent.name] = {
            "tags": [picture["tag"] for picture in listed["pictures"]],
            "faults": [f"{fault['source']}: {fault['message']}" for fault in listed["faults"]],
            "notes": listed["numbers"].get("notes", []),
        }
    return found


def pictures_of(board: Path, folder: Path) -> dict[str, list[int]]:
    """The steps of every picture's tag; writes the last of each, and all of them on one sheet."""
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps: dict[str, list[int]] = {}
    images: dict[str, Image.Image] = {}
    for place in sorted({path.parent for path in board.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(place), size_guidance={"images": 0, "tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            logged = [event for event in events.Tensors(tag) if len(event.tensor_proto.string_val) > 2]
            if logged:
                steps[tag] = [event.step for event in logged]
                images[tag] = Image.open(io.BytesIO(logged[-1].tensor_proto.string_val[2])).convert("RGB")
    folder.mkdir(parents=True, exist_ok=True)
    for tag, image in images.items():
        image.save(folder / f"{re.sub(r'[^-.a-zA-Z0-9]', '_', tag)}.png")
    if images:
        width, most = 1400, 10
        last = ("embedding", "filters", "statistics")
        order = sorted(images, key=lambda tag: (tag.partition("/")[0] in last, tag))
        shown = [images[tag] for tag in order][:most]
        for image in shown:
            image.thumbnail((width // 2, 900))
        rows = [shown[start : start + 2] for start in range(0, len(shown), 2)]
        heights = [max(image.height for image in row) for row in rows]
        sheet = Image.new("RGB", (width, sum(heights)), "white")
        for number, row in enumerate(rows):
            for column, image in enumerate(row):
                sheet.paste(image, (column * width // 2, sum(heights[:number])))
        sheet.save(folder / "sheet.png")
    return steps


# --- In the process that runs them all.


def run_all(names: list[str], out: Path, *, analyzed: bool, limit: float) -> None:
    """Each model in a process of its own, which ends within a limit."""
    for name in names:
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).unlink(missing_ok=True)
        for old in ("board", "analysis", "pictures"):
            subprocess.run(["rm", "-rf", str(folder / old)], check=True)
        command = [sys.executable, __file__, "--child", name, "--out", str(out)]
        command += [] if analyzed else ["--no-analyze"]
        started = time.monotonic()
        with (folder / "output.txt").open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                status = process.wait(limit)
                end = "" if status == 0 else f"ended with status {status}"
            except subprocess.TimeoutExpired:
                end = f"stopped after {limit:.0f} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        result = json.loads((folder / RESULT).read_text()) if (folder / RESULT).exists() else {}
        result["end"] = end and f"{end}, at {result.get('at', 'its start')}"
        result["analysis"] = analysis_of(folder / "analysis")  # of one that was stopped, too: as far as it came
        (folder / RESULT).write_text(json.dumps(result, indent=1))
        print(f"{name}: {time.monotonic() - started:.0f} s; {verdict(result)}", flush=True)
        for line in unexpected(name, result):
            print(f"{name}: UNEXPECTED {line}", flush=True)


def unexpected(name: str, result: dict[str, Any]) -> list[str]:
    """What of a model's run is not as it should be: weights, kinds of pictures, raw errors among what was said."""
    raised = {part: error for part, (error, _) in result.get("exceptions", {}).items()}
    if USUAL == LESS.get(name) and raised.get("analyze", "").startswith("AnalysisError"):
        del raised["analyze"]
    wrong = [f"{part} raised {error}" for part, error in raised.items()]
    if result.get("identical") is not True:
        wrong.append("not the same weights")
    drawn = {tag.partition("/")[0] for tag in result.get("drawn", {})}
    expected = USUAL - LESS.get(name, set())
    if drawn != expected:
        wrong.append(f"drew {sorted(drawn)}, not {sorted(expected)}")
    said = [line for line in result.get("lines", {}).get("views", {}) if "the look at step 0" not in line]
    said += [fault for part in result.get("analysis", {}).values() for fault in part["faults"]]
    return [*wrong, *(line for line in said if RAW.search(line) or " failed at step " in line)]


def verdict(result: dict[str, Any]) -> str:
    """A model's run in a few words."""
    words = [result["end"]] if result.get("end") else []
    words += [f"{part} raised {error}" for part, (error, _) in result.get("exceptions", {}).items()]
    if result.get("identical") is False:
        words.append("WEIGHTS DIFFER")
    kinds = Counter(tag.partition("/")[0] for tag in result.get("drawn", {}))
    words.append(f"drew {', '.join(kinds) or 'nothing'}")
    warned = sum(not line.startswith("info: ") for line in result.get("lines", {}).get("views", {}))
    words.append(f"{warned} warnings")
    if result.get("analysis"):
        words.append(f"{sum(len(part['faults']) for part in result['analysis'].values())} faults in the analysis")
    return "; ".join(words)


def table(names: list[str], out: Path) -> str:
    """Everything that was found, as Markdown."""
    results = {name: json.loads((out / name / RESULT).read_text()) for name in names if (out / name / RESULT).exists()}
    (out / "outside.json").write_text(json.dumps(results, indent=1))
    lines = [
        "| model | drawn live (pictures) | same weights | warnings, causes | s bare, views, analyze | analyze |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        lines.append(f"| `{name}` | {' | '.join(_row(result))} |")
    for name, result in results.items():
        lines += ["", f"## {name}", "", f"{verdict(result)}.", *_details(result)]
    return "\n".join(lines) + "\n"


def _row(result: dict[str, Any]) -> list[str]:
    drawn: Counter[str] = Counter()
    for tag, steps in result.get("drawn", {}).items():
        drawn[tag.partition("/")[0]] += len(steps)
    analysis = result.get("analysis", {})
    kinds = dict.fromkeys(tag.partition("/")[0] for part in analysis.values() for tag in part["tags"])
    faults = sum(len(part["faults"]) for part in analysis.values())
    warned = {line: n for line, n in result.get("lines", {}).get("views", {}).items() if not line.startswith("info: ")}
    seconds = [str(result.get("seconds", {}).get(part, "-")) for part in ("bare", "views", "analyze")]
    counts = (
        [f"{len(kinds)} kinds, {faults} faults"] if "analyze" in result.get("seconds", {}) or analysis else ["not run"]
    )
    ended = [result["end"]] if result.get("end") else []
    raised = [error.partition("\n")[0][:80] for error, _ in result.get("exceptions", {}).values()]
    return [
        ", ".join(f"{kind} {count}" for kind, count in drawn.items()) or "nothing",
        "yes" if result.get("identical") else "**no**" if "identical" in result else "?",
        f"{sum(warned.values())}, {len(causes(warned))}",
        " / ".join(seconds),
        "; ".join([*counts, *ended, *raised]).replace("|", "\\|"),
    ]


def causes(lines: dict[str, int]) -> dict[str, tuple[int, list[str]]]:
    """Lines of one cause together: how many, and of which views; those that differ in numbers alone count as one."""
    together: dict[str, tuple[str, int, list[str]]] = {}
    for line, count in lines.items():
        matched = FAULT.search(line)
        cause = f"failed: {matched['cause']}" if matched else line
        first, known, views = together.get(NUMBER.sub("#", cause), (cause, 0, []))
        views = [*views, matched["view"]] if matched and matched["view"] not in views else views
        together[NUMBER.sub("#", cause)] = first, known + count, views
    return {first: (count, views) for first, count, views in together.values()}


def _details(result: dict[str, Any]) -> list[str]:
    """Every cause once, with the number of its lines; what was raised; what the analysis gave."""
    lines = []
    for part, said in result.get("lines", {}).items():
        for cause, (count, views) in causes(said).items():
            lines.append(f"- {part}, {count} x: {', '.join(views)}{' ' if views else ''}{_short(cause)}")
    known = result.get("others", {})
    for line, count in known.get("views", {}).items():
        if line not in known.get("bare", {}):
            lines.append(f"- views, {count} x, from elsewhere: {_short(line)}")
    for part, (error, place) in result.get("exceptions", {}).items():
        lines.append(f"- **{part} raised** {_short(error)} ({place})")
    for part, content in result.get("analysis", {}).items():
        lines += [f"- analyze, {part}, fault: {_short(fault)}" for fault in content["faults"]]
        lines += [f"- analyze, {part}, note: {_short(note)}" for note in content["notes"]]
        if content["tags"]:
            lines.append(f"- analyze, {part} drew: {', '.join(dict.fromkeys(content['tags']))}")
    return ["", *lines] if lines else []


def _short(text: str, most: int = 400) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[:most]} ..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="models to run (default: all)")
    parser.add_argument("--out", type=Path, default=Path("outside"), metavar="DIR", help="folder for what is found")
    parser.add_argument("--analyze", action=argparse.BooleanOptionalAction, default=True, help="the checkpoint as well")
    parser.add_argument("--limit", type=float, default=420.0, metavar="SECONDS", help="of a model's process")
    parser.add_argument("--table", action="store_true", help="write the table of what was run before, and run nothing")
    parser.add_argument("--child", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_model(options.child, options.out / options.child, analyzed=options.analyze)
        return
    from outside_zoo import MODELS

    unknown = [name for name in options.only or () if name not in MODELS]
    if unknown:
        parser.error(f"there is no model {unknown[0]!r}: {', '.join(MODELS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        run_all(options.only or list(MODELS), options.out, analyzed=options.analyze, limit=options.limit)
    (options.out / "outside.md").write_text(table(list(MODELS), options.out))
    found = {name: options.out / name / RESULT for name in options.only or MODELS}
    if any(path.exists() and unexpected(name, json.loads(path.read_text())) for name, path in found.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
