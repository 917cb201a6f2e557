"""Files for TensorBoard's projector, beside a run's events."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from lightning_viz.callbacks.sketch import Projection

_OURS = "lightning_viz_projector"


def write_projection(folder: Path, projection: Projection) -> None:
    """Write a layer's vectors, labels and sprite, and name them in the run's projector config.

    What others wrote into the config stays; what an earlier step of the same layer wrote is replaced. Every file is
    whole or not there.

    Args:
        folder: of the run's event files; the projector takes paths relative to it.
        projection: what to write.
    """
    name = re.sub(r"[^\w.-]", "_", projection.tag)
    place = folder / _OURS / name
    place.mkdir(parents=True, exist_ok=True)
    files = {"vectors.tsv": projection.vectors, "labels.tsv": projection.metadata, "sprite.png": projection.sprite}
    for file, content in files.items():
        if content is not None:
            write_whole(place / file, content)
    path = folder / "projector_config.pbtxt"
    config = ProjectorConfig()
    if path.exists():
        text_format.Parse(path.read_text(), config)
    kept = [one for one in config.embeddings if one.tensor_name != projection.tag]
    del config.embeddings[:]
    config.embeddings.extend(kept)
    ours = config.embeddings.add(tensor_name=projection.tag, tensor_path=f"{_OURS}/{name}/vectors.tsv")
    if projection.metadata is not None:
        ours.metadata_path = f"{_OURS}/{name}/labels.tsv"
    if projection.sprite is not None:
        ours.sprite.image_path = f"{_OURS}/{name}/sprite.png"
        ours.sprite.single_image_dim.extend([projection.side, projection.side])
    write_whole(path, text_format.MessageToString(config).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there.

    Args:
        path: of the file, which is replaced.
        content: all of it.
    """
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)
