from .analyze import analyze as analyze
from .compare import compare as compare
from .config import ClassSpec as ClassSpec
from .model_under_study import ModelUnderStudy as ModelUnderStudy
from .models import read_checkpoint as read_checkpoint
from .run_config import RunConfig as RunConfig
from .run_facts import DIGEST_VERSION as DIGEST_VERSION
from .run_facts import digest as digest
