"""The size of the largest ONNX model: all of it is one message of protobuf, which writes none of 2 GB or more."""

from __future__ import annotations

from fcn_deploy.errors import InputError

# In bytes, with room for what is not weights.
LARGEST = 2**31 - 2**24


def check_weights_size(size: int, what: str, fix: str) -> None:
    """Checks that weights fit into an ONNX model.

    Args:
        size: Of all weights, in bytes.
        what: What has them.
        fix: What the user can do if they do not.

    Raises:
        InputError: They do not fit.
    """
    if size > LARGEST:
        raise InputError(
            f"{what} is too large for one ONNX file",
            got=f"{size / 1e9:.1f} GB of weights",
            expected="less than 2 GB",
            fix=fix,
        )
