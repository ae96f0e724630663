"""Whether the weights of a net fit into an ONNX file."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from fcn_deploy.graph.size_limit import check_weights_size


def check_size(net: nn.Module) -> None:
    """Checks that a net's parameters and buffers fit into an ONNX file.

    Args:
        net: Any net, on any device, also without memory for its weights.

    Raises:
        InputError: They do not fit.
    """
    weights = (tensor for tensor in (*net.parameters(), *net.buffers()) if not is_lazy(tensor))
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    check_weights_size(size, "the net", "deploy a smaller net, such as one of fewer channels")
