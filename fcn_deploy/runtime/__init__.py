"""What the edge device imports: numpy and one inference library, nothing else."""

from fcn_deploy.runtime.backend import Backend
from fcn_deploy.runtime.image import colorize, normalize, overlay
from fcn_deploy.runtime.open import open_backend
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.runtime.segmenter import Segmenter

__all__ = ["Backend", "RuntimeOptions", "Segmenter", "colorize", "normalize", "open_backend", "overlay"]
