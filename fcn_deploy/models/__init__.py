"""The nets, in torch. Importing this package imports torch."""

from fcn_deploy.models.checkpoint import Checkpoint, load_model, read_checkpoint
from fcn_deploy.models.fcn import FCN

__all__ = ["FCN", "Checkpoint", "load_model", "read_checkpoint"]
