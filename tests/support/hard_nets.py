"""Four slim nets of the kinds that INT8 finds hard, written for these tests and trained on demo scenes.

Each class is a maker for `--model tests.support.hard_nets:NAME`, of a net that takes images of every size. Their
weights, in `tests/support/weights`, were made by `make hard-nets`.
"""

import torch
from torch import nn
from torch.nn import functional as F

from fcn_deploy.demo import CLASSES


def block(inputs, outputs, kernel=3, stride=1, dilation=1, groups=1, activation=nn.ReLU):
    """A convolution, batch normalisation and an activation; None for no activation."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([activation()] if activation else []))


def resized(maps, like):
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)


class InvertedResidual(nn.Module):
    """Wide inside, depthwise, linear at the end: of MobileNetV2, Sandler et al. 2018, https://arxiv.org/abs/1801.04381."""

    def __init__(self, inputs, outputs, stride=1, dilation=1, expansion=4, activation=nn.ReLU6):
        super().__init__()
        inner = inputs * expansion
        self.body = nn.Sequential(
            block(inputs, inner, 1, activation=activation),
            block(inner, inner, 3, stride, dilation, groups=inner, activation=activation),
            block(inner, outputs, 1, activation=None),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class FastScnn(nn.Module):
    """Two branches from one stem, pooled cells: after Fast-SCNN, Poudel et al. 2019, https://arxiv.org/abs/1902.04502."""

    def __init__(self):
        super().__init__()
        separable = [(24, 32, 2), (32, 48, 2)]
        self.stem = nn.Sequential(
            block(3, 24, 3, 2),
            *(
                nn.Sequential(block(i, i, 3, stride, groups=i, activation=None), block(i, o, 1))
                for i, o, stride in separable
            ),
        )
        steps = [(48, 48, 2), (48, 64, 1), (64, 64, 2), (64, 80, 1), (80, 80, 1)]
        self.deep = nn.Sequential(*(InvertedResidual(i, o, s, activation=nn.ReLU) for i, o, s in steps))
        self.cells = (1, 2, 3, 6)
        self.pooled = nn.ModuleList(block(80, 20, 1) for _ in self.cells)
        self.gathered = block(160, 96, 1)
        self.low = block(48, 96, 1, activation=None)
        self.high = nn.Sequential(block(96, 96, 3, groups=96), block(96, 96, 1, activation=None))
        self.classify = nn.Sequential(block(96, 96, 3, groups=96), block(96, 96, 1), nn.Conv2d(96, len(CLASSES), 1))

    def forward(self, image):
        low = self.stem(image)
        deep = self.deep(low)
        cells = [
            resized(conv(F.adaptive_avg_pool2d(deep, size)), deep)
            for size, conv in zip(self.cells, self.pooled, strict=True)
        ]
        deep = self.high(resized(self.gathered(torch.cat([deep, *cells], 1)), low))
        return resized(self.classify(F.relu(self.low(low) + deep)), image)


class MobileDeepLab(nn.Module):
    """ReLU6, a dilated pyramid, a skip: after DeepLabV3+, Chen et al. 2018, https://arxiv.org/abs/1802.02611."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(block(3, 16, 3, 2, activation=nn.ReLU6), InvertedResidual(16, 24, 2))
        self.trunk = nn.Sequential(
            InvertedResidual(24, 24),
            InvertedResidual(24, 32, 2),
            InvertedResidual(32, 32),
            InvertedResidual(32, 64, 2),
            InvertedResidual(64, 64),
            InvertedResidual(64, 64, dilation=2),
        )
        self.pyramid = nn.ModuleList(
            nn.Sequential(block(64, 64, 3, dilation=rate, groups=64), block(64, 48, 1)) for rate in (1, 3, 6)
        )
        self.whole = block(64, 48, 1)
        self.joined = block(192, 64, 1)
        self.skip = block(24, 24, 1)
        self.head = nn.Sequential(block(88, 88, 3, groups=88), block(88, 64, 1), nn.Conv2d(64, len(CLASSES), 1))

    def forward(self, image):
        early = self.stem(image)
        deep = self.trunk(early)
        whole = self.whole(deep.mean((2, 3), keepdim=True)).expand_as(deep[:, :48])
        joined = self.joined(torch.cat([*(branch(deep) for branch in self.pyramid), whole], 1))
        return resized(self.head(torch.cat([resized(joined, early), self.skip(early)], 1)), image)


class DilatedPyramid(nn.Module):
    """Of ESPNet (Mehta et al. 2018, https://arxiv.org/abs/1803.06815): dilated convolutions, each added to the next."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        width = outputs // 4
        self.reduce = nn.Conv2d(inputs, width, 3 if stride == 2 else 1, stride, 1 if stride == 2 else 0, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=rate, dilation=rate, bias=False) for rate in (1, 2, 4, 8)
        )
        self.normal, self.activation = nn.BatchNorm2d(outputs), nn.PReLU(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        reduced = self.reduce(x)
        first, *others = (branch(reduced) for branch in self.branches)
        sums = [first]
        for other in others:
            sums.append(sums[-1] + other)
        y = torch.cat(sums, 1)
        return self.activation(self.normal(x + y if self.residual else y))


class EspNet(nn.Module):
    """After ESPNet: PReLU with a slope for each channel, dilated pyramids, transposed convolutions on the way up."""

    def __init__(self):
        super().__init__()
        self.first = block(3, 16, 3, 2, activation=lambda: nn.PReLU(16))
        self.second = nn.Sequential(DilatedPyramid(16, 48, 2), DilatedPyramid(48, 48), DilatedPyramid(48, 48))
        self.third = nn.Sequential(DilatedPyramid(48, 96, 2), *(DilatedPyramid(96, 96) for _ in range(4)))
        self.up = nn.ConvTranspose2d(96, 48, 2, 2, bias=False)
        self.merged = nn.Sequential(block(96, 48, 1, activation=lambda: nn.PReLU(48)), DilatedPyramid(48, 48))
        self.up_again = nn.ConvTranspose2d(48, 16, 2, 2, bias=False)
        self.head = nn.Sequential(block(32, 24, 3, activation=lambda: nn.PReLU(24)), nn.Conv2d(24, len(CLASSES), 1))

    def forward(self, image):
        first = self.first(image)
        second = self.second(first)
        third = self.third(second)
        up = self.up(third)[..., : second.shape[2], : second.shape[3]]
        merged = self.merged(torch.cat([up, second], 1))
        up = self.up_again(merged)[..., : first.shape[2], : first.shape[3]]
        return resized(self.head(torch.cat([up, first], 1)), image)


class UNet(nn.Module):
    """Concatenated skips: after U-Net, Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, and slimmer."""

    def __init__(self):
        super().__init__()
        sizes = (16, 24, 40, 64, 80)
        self.down = nn.ModuleList(
            nn.Sequential(block(i, o), block(o, o)) for i, o in zip((3, *sizes), sizes, strict=False)
        )
        pairs = list(zip(sizes[1:], sizes, strict=False))
        self.narrow = nn.ModuleList(block(deep, fine, 1) for deep, fine in pairs)
        self.up = nn.ModuleList(block(2 * fine, fine) for _, fine in pairs)
        self.head = nn.Conv2d(sizes[0], len(CLASSES), 1)

    def forward(self, image):
        maps = [self.down[0](image)]
        for stage in self.down[1:]:
            maps.append(stage(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for skip, narrow, up in zip(reversed(maps), reversed(self.narrow), reversed(self.up), strict=True):
            x = up(torch.cat([resized(narrow(x), skip), skip], 1))
        return self.head(x)


NETS = {"fast_scnn": FastScnn, "mobile_deeplab": MobileDeepLab, "espnet": EspNet, "unet": UNet}
