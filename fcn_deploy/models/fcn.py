"""FCN-32s, FCN-16s and FCN-8s: one net; its stride says how many skips refine the score map.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
https://arxiv.org/abs/1411.4038
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from fcn_deploy.artifacts.geometry import Geometry
from fcn_deploy.models.vgg import BLOCKS, VGG16Trunk, conv_relu, scaled_channels

Stride = Literal[32, 16, 8]
VARIANTS: dict[str, Stride] = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}
FC_CHANNELS = 4096
_SIZE_PRESERVING = Geometry()

# The skips in the order they are added: the stride of the trunk's map, its score layer, and the deconvolution that
# brings the coarser score map to that stride.
_SKIPS = ((16, "score_pool4_fr", "upscore2"), (8, "score_pool3_fr", "upscore2_pool4"))

# Where the paper's nets crop: how many rows and columns are cut from the top and left of each skip's score map, by the
# stride of the skip, and of the last map, by the stride of the net. The crops undo the padding of 100; see `coord_map`
# of the reference implementation.
_SKIP_OFFSETS = {16: 5, 8: 9}
_LAST_OFFSETS = {32: 19, 16: 27, 8: 31}


class FCN(VGG16Trunk):
    """A fully convolutional net over a VGG16 trunk, whose output has the size of the image at every size.

    Args:
        stride: 32, 16 or 8: the stride of the score map that the last deconvolution brings to full size.
        num_classes: Channels of the output.
        width: Channel multiplier of the trunk, fc6 and fc7; 1.0 is the published size. It is rounded to a whole number
            of fc6 channels, so that the tensors alone tell it.
        geometry: Which of the published geometries it has.
    """

    def __init__(
        self, stride: Stride, num_classes: int, width: float = 1.0, geometry: Geometry = _SIZE_PRESERVING
    ) -> None:
        width = scaled_channels(FC_CHANNELS, width) / FC_CHANNELS
        super().__init__(width, geometry.input_padding)
        self.geometry = geometry
        self.stride = stride
        self.num_classes = num_classes
        self.width = width
        self._add_head(scaled_channels(BLOCKS[-1][0], width), scaled_channels(FC_CHANNELS, width))
        self._add_upscores()
        self._initialise()

    @property
    def published(self) -> bool:
        """Whether it has the paper's geometry: the image is padded by 100, and crops have fixed offsets."""
        return self.geometry.input_padding > 0

    @property
    def skips(self) -> tuple[tuple[int, str, str], ...]:
        """The skips of this net: stride, name of the score layer, name of the deconvolution before the sum."""
        return tuple(skip for skip in _SKIPS if skip[0] >= self.stride)

    def _add_head(self, in_channels: int, channels: int) -> None:
        # Published FCN-32s checkpoints of this family hold fc6 and fc7 as Conv+ReLU pairs (`fc6.0.weight`), the finer
        # nets as plain convolutions (`fc6.weight`). The same split here lets each load unchanged.
        paired = self.stride == 32
        padding = 0 if self.published else self.geometry.fc6_kernel // 2

        def dense(inputs: int, kernel: int, padding: int) -> nn.Module:
            pair = conv_relu(inputs, channels, kernel, padding)
            return pair if paired else pair[0]

        self.fc6 = dense(in_channels, self.geometry.fc6_kernel, padding)
        self.fc7 = dense(channels, 1, 0)
        self.relu6 = nn.Identity() if paired else nn.ReLU(inplace=True)
        self.relu7 = nn.Identity() if paired else nn.ReLU(inplace=True)
        self.drop6, self.drop7 = nn.Dropout2d(), nn.Dropout2d()
        self.score_fr = nn.Conv2d(channels, self.num_classes, 1)

    def _add_upscores(self) -> None:
        for stride, score, upscore in self.skips:
            block = stride.bit_length() - 2  # the pool of stride 2**n closes block n, which is entry n - 1
            self.add_module(score, nn.Conv2d(scaled_channels(BLOCKS[block][0], self.width), self.num_classes, 1))
            self.add_module(upscore, self._upscore(2))
        self.add_module(f"upscore{self.stride}", self._upscore(self.stride))

    def _upscore(self, stride: int) -> nn.ConvTranspose2d:
        """A deconvolution that multiplies the size by `stride`; the paper's crops nothing and has no bias."""
        classes, kernel = self.num_classes, 2 * stride
        if self.published:
            return nn.ConvTranspose2d(classes, classes, kernel, stride=stride, bias=False)
        return nn.ConvTranspose2d(classes, classes, kernel, stride=stride, padding=stride // 2)

    def _initialise(self) -> None:
        # Sections 4.2 and 4.3 of the paper: deconvolutions start as bilinear interpolation and new skips as zero, so
        # that a finer net starts with exactly the predictions of the coarser one.
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d):
                module.weight.data.copy_(bilinear_kernel(self.num_classes, module.kernel_size[0]))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
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
        for (stride, score, upscore), scale in zip(self.skips, self.geometry.skip_scales, strict=False):
            features = maps[stride] if scale == 1 else maps[stride] * scale
            x = self._sum(self.get_submodule(upscore)(x), self.get_submodule(score)(features), stride)
        x = self.get_submodule(f"upscore{self.stride}")(x)
        return _crop(x, image, _LAST_OFFSETS[self.stride] if self.published else 0)

    def _sum(self, upscored: Tensor, skip: Tensor, stride: int) -> Tensor:
        if self.published:
            return upscored + _crop(skip, upscored, _SKIP_OFFSETS[stride])
        # The pools round up, so the upsampled map can be larger than the skip. The excess is at the bottom and the
        # right, where the pools added it.
        return _crop(upscored, skip) + skip


def _crop(x: Tensor, reference: Tensor, offset: int = 0) -> Tensor:
    """Crops `x` to the size of `reference`, starting at row and column `offset`."""
    height, width = reference.shape[2:]
    return x[:, :, offset : offset + height, offset : offset + width]


def bilinear_kernel(channels: int, size: int) -> Tensor:
    """Returns deconvolution weights that interpolate bilinearly, channel by channel.

    The filter of the reference implementation's `surgery.upsample_filt`
    (https://github.com/shelhamer/fcn.berkeleyvision.org).

    Args:
        channels: In and out channels; off-diagonal filters are zero.
        size: Kernel size; an even one upsamples by `size / 2`.

    Returns:
        float32 [channels, channels, size, size].
    """
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    ramp = 1 - (torch.arange(size, dtype=torch.float32) - center).abs() / factor
    return torch.eye(channels)[:, :, None, None] * (ramp[:, None] * ramp[None, :])
