"""Where pictures go: TensorBoard, Weights & Biases, MLflow, Comet, another logger that takes images, or a folder."""

from lightning_viz.callbacks.writers.choice import find_writers as find_writers
from lightning_viz.callbacks.writers.choice import new_folder as new_folder
from lightning_viz.callbacks.writers.folder import FolderWriter as FolderWriter
from lightning_viz.callbacks.writers.image_logger import ImageLoggerWriter as ImageLoggerWriter
from lightning_viz.callbacks.writers.log_files import PARTS as PARTS
from lightning_viz.callbacks.writers.log_files import local_path as local_path
from lightning_viz.callbacks.writers.log_files import whole_addition as whole_addition
from lightning_viz.callbacks.writers.projector_files import write_projection as write_projection
from lightning_viz.callbacks.writers.protocol import Writer as Writer
from lightning_viz.callbacks.writers.tensorboard_log import TensorBoardWriter as TensorBoardWriter
