"""How large the weights of a net are, whether they fit into an ONNX file, and how their memory is given back."""

from __future__ import annotations

import gc
import weakref

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fcn_deploy.graph.size_limit import check_weights_size


def weights_size(net: nn.Module) -> int:
    """Returns the size of a net's parameters and buffers, in bytes.

    Args:
        net: Any net, on any device, also without memory for its weights.
    """
    weights = (tensor for tensor in _tensors(net) if not is_lazy(tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in weights)


def _tensors(net: nn.Module) -> list[Tensor]:
    # A net may have attributes of these names.
    return [*nn.Module.parameters(net), *nn.Module.buffers(net)]


def check_size(net: nn.Module) -> None:
    """Checks that a net's parameters and buffers fit into an ONNX file.

    Args:
        net: As for `weights_size`.

    Raises:
        InputError: They do not fit.
    """
    check_weights_size(weights_size(net), "the net", "deploy a smaller net, such as one of fewer channels")


class Weights:
    """The weights of a net that is soon of no further use.

    To drop the net does not give back their memory: what torch.export and onnxscript keep for themselves holds them.

    Args:
        net: It is not kept.
    """

    def __init__(self, net: nn.Module) -> None:
        self._modules = [weakref.ref(module) for module in nn.Module.modules(net)]
        self._tensors = _tensors(net)

    def release(self) -> None:
        """Gives back the memory, unless somebody else keeps the net, such as user's code that makes it only once."""
        gc.collect()  # modules refer to one another
        if any(module() is not None for module in self._modules):
            return
        for tensor in self._tensors:
            if type(tensor.data) is Tensor:  # the memory of others is not theirs to give back
                tensor.data = tensor.data.new_empty(0)
