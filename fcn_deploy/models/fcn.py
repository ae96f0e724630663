"""FCN-32s, FCN-16s and FCN-8s: one net, whose stride says how many skips refine the score map.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
https://arxiv.org/abs/1411.4038
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from fcn_deploy.models.vgg import BLOCKS, VGG16Trunk, conv_relu, scaled

Stride = Literal[32, 16, 8]
VARIANTS: dict[str, Stride] = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}
FC_CHANNELS = 4096

# The skips in the order they are added: stride of the trunk's map, its score layer, and the deconvolution that
# brings the coarser score map to that stride.
_SKIPS = ((16, "score_pool4_fr", "upscore2"), (8, "score_pool3_fr", "upscore2_pool4"))


class FCN(VGG16Trunk):
    """A fully convolutional net over a VGG16 trunk, exact at every image size.

    Args:
        stride: 32, 16 or 8: the stride of the score map that the last deconvolution brings to full size.
        num_classes: Channels of the output.
        width: Channel multiplier of the trunk, fc6 and fc7; 1.0 is the published size. It is rounded to a whole number
            of fc6 channels, so that the tensors alone tell it.
    """

    def __init__(self, stride: Stride, num_classes: int, width: float = 1.0) -> None:
        width = scaled(FC_CHANNELS, width) / FC_CHANNELS
        super().__init__(width)
        self.stride = stride
        self.num_classes = num_classes
        self.width = width
        self._add_head(scaled(BLOCKS[-1][0], width), scaled(FC_CHANNELS, width))
        self._add_upscores()
        self._initialise()

    @property
    def skips(self) -> tuple[tuple[int, str, str], ...]:
        """The skips this net has: stride, name of the score layer, name of the deconvolution before the sum."""
        return tuple(skip for skip in _SKIPS if skip[0] >= self.stride)

    def _add_head(self, in_channels: int, channels: int) -> None:
        # Published FCN-32s checkpoints of this family keep fc6 and fc7 as Conv+ReLU pairs (`fc6.0.weight`), the
        # finer ones as plain convolutions (`fc6.weight`); with the same split here each loads unchanged.
        paired = self.stride == 32

        def dense(inputs: int) -> nn.Module:
            return conv_relu(inputs, channels, 1) if paired else nn.Conv2d(inputs, channels, 1)

        self.fc6, self.fc7 = dense(in_channels), dense(channels)
        self.relu6 = nn.Identity() if paired else nn.ReLU(inplace=True)
        self.relu7 = nn.Identity() if paired else nn.ReLU(inplace=True)
        self.drop6, self.drop7 = nn.Dropout2d(), nn.Dropout2d()
        self.score_fr = nn.Conv2d(channels, self.num_classes, 1)

    def _add_upscores(self) -> None:
        for stride, score, upscore in self.skips:
            block = stride.bit_length() - 2  # the pool of stride 2**n closes block n, which is entry n - 1
            self.add_module(score, nn.Conv2d(scaled(BLOCKS[block][0], self.width), self.num_classes, 1))
            self.add_module(upscore, _upscore(self.num_classes, 2))
        self.add_module(f"upscore{self.stride}", _upscore(self.num_classes, self.stride))

    def _initialise(self) -> None:
        # Section 4.2 and 4.3 of the paper: deconvolutions start as bilinear interpolation, new skips as zero, so
        # that a finer net starts from exactly what the coarser one predicts.
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d):
                module.weight.data.copy_(bilinear_kernel(self.num_classes, module.kernel_size[0]))
                nn.init.zeros_(cast(Tensor, module.bias))
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, module.bias))
        for _, score, _ in self.skips:
            nn.init.zeros_(cast(nn.Conv2d, self.get_submodule(score)).weight)

    def forward(self, image: Tensor) -> Tensor:
        """Segments a batch.

        Args:
            image: float [N, 3, H, W], normalised, H and W at least 1.

        Returns:
            Logits, float [N, C, H, W].
        """
        maps = self.features(image)
        x = self.drop6(self.relu6(self.fc6(maps[32])))
        x = self.drop7(self.relu7(self.fc7(x)))
        x = self.score_fr(x)
        for stride, score, upscore in self.skips:
            skip = self.get_submodule(score)(maps[stride])
            x = _crop(self.get_submodule(upscore)(x), skip) + skip
        return _crop(self.get_submodule(f"upscore{self.stride}")(x), image)


def _upscore(channels: int, stride: int) -> nn.ConvTranspose2d:
    """A deconvolution that multiplies a map's size by exactly `stride`."""
    return nn.ConvTranspose2d(channels, channels, 2 * stride, stride=stride, padding=stride // 2)


def _crop(x: Tensor, reference: Tensor) -> Tensor:
    # The pools round up, so the upsampled map can be larger than what it is to match; the excess is at the bottom
    # and the right, where the pools invented it.
    return x[:, :, : reference.shape[2], : reference.shape[3]]


def bilinear_kernel(channels: int, size: int) -> Tensor:
    """Returns deconvolution weights that interpolate bilinearly, channel by channel.

    The filter of the reference implementation's `surgery.upsample_filt`
    (https://github.com/shelhamer/fcn.berkeleyvision.org).

    Args:
        channels: In and out channels; off-diagonal filters are zero.
        size: Kernel size; even for an upsampling by `size / 2`.

    Returns:
        float32 [channels, channels, size, size].
    """
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    ramp = 1 - (torch.arange(size, dtype=torch.float32) - center).abs() / factor
    return torch.eye(channels)[:, :, None, None] * (ramp[:, None] * ramp[None, :])
