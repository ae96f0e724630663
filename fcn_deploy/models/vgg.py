"""The VGG16 trunk: thirteen 3x3 convolutions in five blocks, each followed by a 2x2 max-pool.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", configuration D,
https://arxiv.org/abs/1409.1556
"""

from __future__ import annotations

from torch import Tensor, nn

# Of each block: output channels at width 1, and number of convolutions.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# The names of the convolutions, in the order of the forward pass.
TRUNK = tuple(f"conv{block}_{conv}" for block, (_, convs) in enumerate(BLOCKS, start=1) for conv in range(1, convs + 1))


def scaled_channels(channels: int, width: float) -> int:
    """Returns `channels` times the width multiplier, at least 1."""
    return max(1, round(channels * width))


def conv_relu(in_channels: int, out_channels: int, kernel: int, padding: int | None = None) -> nn.Sequential:
    """A convolution and its ReLU, with keys that end in `.0.weight` and `.0.bias`; by default it keeps the size."""
    padding = kernel // 2 if padding is None else padding
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel, padding=padding), nn.ReLU(inplace=True))


class VGG16Trunk(nn.Module):
    """`conv1_1` to `conv5_3` and `pool1` to `pool5`, registered flat, so that keys start with the layers' names.

    Args:
        width: Channel multiplier; 1.0 is VGG16.
        input_padding: Padding of conv1_1; 0 means 1, which keeps the size.
    """

    def __init__(self, width: float = 1.0, input_padding: int = 0) -> None:
        super().__init__()
        in_channels = 3
        padding = input_padding or None
        for block, (channels, convs) in enumerate(BLOCKS, start=1):
            for conv in range(1, convs + 1):
                out_channels = scaled_channels(channels, width)
                self.add_module(f"conv{block}_{conv}", conv_relu(in_channels, out_channels, 3, padding))
                in_channels, padding = out_channels, None
            # Rounding up keeps the last row and column of an odd map, and can pool a 1x1 map.
            self.add_module(f"pool{block}", nn.MaxPool2d(2, stride=2, ceil_mode=True))

    def features(self, image: Tensor) -> dict[int, Tensor]:
        """Runs the trunk.

        Args:
            image: float [N, 3, H, W], normalised, H and W at least 1.

        Returns:
            The map after each pool, by its stride: 2, 4, 8, 16, 32.
        """
        maps = {}
        x = image
        for block, (_, convs) in enumerate(BLOCKS, start=1):
            for conv in range(1, convs + 1):
                x = self.get_submodule(f"conv{block}_{conv}")(x)
            x = self.get_submodule(f"pool{block}")(x)
            maps[2**block] = x
        return maps
