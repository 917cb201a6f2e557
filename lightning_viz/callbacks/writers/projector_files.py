"""Files of TensorBoard's projector."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from lightning_viz.archive import write_whole
from lightning_viz.callbacks.draw_task import Projection
from lightning_viz.plain_text import file_name, plain_text

_OURS = "lightning_viz_projector"


def write_projection(folder: Path, projection: Projection) -> None:
    """Write a layer's vectors, labels and sprite, and name them in the run's projector config.

    What others wrote into the config stays; what an earlier step of the same layer wrote is replaced. Every file is
    whole or not there.

    Args:
        folder: of the run's event files; the projector takes paths relative to it.
        projection: what to write.
    """
    tag = plain_text(projection.tag)
    name = file_name(tag, re.sub(r"[^\w.-]", "_", tag))
    place = folder / _OURS / name
    place.mkdir(parents=True, exist_ok=True)
    for file, content in projection_files(projection).items():
        write_whole(place / file, content)
    path = folder / "projector_config.pbtxt"
    config = ProjectorConfig()
    if path.exists():
        text_format.Parse(path.read_text(), config)
    others = [entry for entry in config.embeddings if entry.tensor_name != tag]
    del config.embeddings[:]
    config.embeddings.extend(others)
    entry = config.embeddings.add(tensor_name=tag, tensor_path=f"{_OURS}/{name}/vectors.tsv")
    if projection.metadata is not None:
        entry.metadata_path = f"{_OURS}/{name}/labels.tsv"
    if projection.sprite is not None:
        entry.sprite.image_path = f"{_OURS}/{name}/sprite.png"
        entry.sprite.single_image_dim.extend([projection.side, projection.side])
    write_whole(path, text_format.MessageToString(config).encode())


def projection_files(projection: Projection) -> dict[str, bytes]:
    """The files of a projection that there are, by name.

    Args:
        projection: with its vectors, and perhaps labels and thumbnails.
    """
    files = {"vectors.tsv": projection.vectors, "labels.tsv": projection.metadata, "sprite.png": projection.sprite}
    return {name: content for name, content in files.items() if content is not None}
