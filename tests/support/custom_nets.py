"""Custom nets, as users have them: small, with random weights."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 5


class Residual(nn.Module):
    """Two convolutions with batch normalisation, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.downsample = project if inputs != outputs else nn.Identity()

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNetFCN(nn.Module):
    """The shape of torchvision's fcn_resnet50: a dict with `out`, bilinear resizing, an auxiliary head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3 = Residual(16, 24, 1), Residual(24, 24, 1), Residual(24, 32, 2)
        self.classifier = nn.Sequential(
            nn.Conv2d(32, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(16, CLASSES, 1),
        )
        self.aux = nn.Conv2d(24, CLASSES, 1)

    def forward(self, x):
        size = x.shape[-2:]
        features = self.layer2(self.layer1(self.pool(self.stem(x))))
        heads = {"out": self.classifier(self.layer3(features)), "aux": self.aux(features)}
        return {name: F.interpolate(y, size=size, mode="bilinear", align_corners=False) for name, y in heads.items()}


class Depthwise(nn.Module):
    """Depthwise and pointwise convolutions with ReLU6, as in MobileNet; transposed convolution and crop at the end."""

    def __init__(self) -> None:
        super().__init__()
        layers, inputs = [], 3
        for outputs, stride in ((16, 2), (24, 2), (32, 1)):
            layers += [
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU6(),
                nn.Conv2d(outputs, outputs, 3, stride, 1, groups=outputs, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU6(),
            ]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.score = nn.Conv2d(inputs, CLASSES, 1)
        self.upscore = nn.ConvTranspose2d(CLASSES, CLASSES, 8, 4, 2)

    def forward(self, x):
        y = self.upscore(self.score(self.features(x)))
        return y[:, :, : x.shape[2], : x.shape[3]]


class Signed(nn.Module):
    """PReLU and a residual sum, so that activations have both signs; dilation, groups and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 2, 1)
        self.acts = nn.ModuleList(nn.PReLU(16) for _ in range(3))
        self.wide = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.score = nn.Conv2d(8, 4, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.acts[0](self.first(image))
        x = x + self.acts[1](self.wide(x))
        x = self.up(self.acts[2](self.grouped(x)))
        return self.score(x)[..., : image.shape[2], : image.shape[3]]


class UNet(nn.Module):
    """Works only at multiples of 8: maps that were halved three times are joined with maps that are doubled."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (8, 12, 16, 20)
        self.down = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip((3, *sizes), sizes, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, 2) for i, o in itertools.pairwise(sizes))
        self.merge = nn.ModuleList(nn.Conv2d(2 * i, i, 3, padding=1) for i in sizes[:-1])
        self.head = nn.Conv2d(sizes[0], CLASSES, 1)

    def forward(self, x):
        skips = []
        for conv in self.down:
            x = F.relu(conv(x if not skips else F.max_pool2d(x, 2)))
            skips.append(x)
        for index in (2, 1, 0):
            x = F.relu(self.merge[index](torch.cat([self.up[index](x), skips[index]], 1)))
        return self.head(x)


class Fixed(nn.Module):
    """Not fully convolutional: a linear layer that fits images of 32x32 only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.mix = nn.Linear(32 * 32, 32 * 32)
        self.head = nn.Conv2d(4, CLASSES, 1)

    def forward(self, x):
        y = F.relu(self.conv(x))
        return self.head(self.mix(y.flatten(2)).unflatten(2, (32, 32)))


class Classifier(nn.Module):
    """One answer per image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 3, padding=1)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


class Coarse(nn.Module):
    """Its logits are four times smaller than the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 4, 4)

    def forward(self, x):
        return self.conv(F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)))


class Conditional(nn.Module):
    """Computes something else for images of even height."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return y * 2 if x.shape[2] % 2 == 0 else y


class Tall(nn.Module):
    """Computes something else for images that are higher than those that tests usually try."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return y + 1 if x.shape[2] > 1000 else y


class Mixing(nn.Module):
    """Lets the images of a batch see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return y - y.mean(0, keepdim=True)


class Needy(nn.Module):
    """Cannot be made without an argument."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, classes, 1)


ready = Depthwise()
number = 3


@functools.cache
def the_same() -> nn.Module:
    """Makes a net once, and returns it every time."""
    return Depthwise()


def fails() -> nn.Module:
    raise RuntimeError("no net today")


def gives_a_string() -> str:
    return "net"


def trained(net: nn.Module) -> nn.Module:
    """Gives a net random weights and statistics with which every layer shows in the output."""
    torch.manual_seed(0)
    for module in nn.Module.modules(net):  # a net may hide its own
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.normal_(module.bias, std=0.1) if module.bias is not None else None
    return net.eval()


class OneLogit(nn.Module):
    """A binary net that is right about images of red and other colours: one channel, above 0 where red is above 64."""

    def __init__(self) -> None:
        super().__init__()
        self.mid, self.wide, self.score = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 1, 1)
        for parameter in self.parameters():
            parameter.data.zero_()
        self.mid.weight.data[0, 0, 1, 1] = self.wide.weight.data[0, 0, 1, 1] = 1
        self.score.weight.data[0, 0], self.score.bias.data[0] = 8, -8 * 64 / 255

    def forward(self, x):
        return self.score(F.relu(self.wide(F.relu(self.mid(x)))))


class OneProbability(OneLogit):
    """The same net behind a sigmoid, as in portrait matting and in medicine."""

    def forward(self, x):
        return torch.sigmoid(super().forward(x))


class OneClamped(OneLogit):
    """The same net with a clamp in place of a sigmoid, which no operator tells."""

    def forward(self, x):
        return (super().forward(x) / 8 + 0.5).clamp(0, 1)


class PaddedSkip(nn.Module):
    """Pads what it has enlarged to the size of its skip, so that it needs a smallest size and no multiples."""

    def __init__(self) -> None:
        super().__init__()
        self.skip, self.deep, self.score = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, CLASSES, 1)

    def forward(self, x):
        skip = F.relu(self.skip(x))
        wide = F.interpolate(F.relu(self.deep(F.max_pool2d(skip, 4))), scale_factor=4, mode="nearest")
        rows, columns = skip.shape[2] - wide.shape[2], skip.shape[3] - wide.shape[3]
        return self.score(skip + F.pad(wide, (0, columns, 0, rows)))


class InstanceNorm(nn.Module):
    """Statistics of the image, which one pixel does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.InstanceNorm2d(8, affine=True), nn.Conv2d(8, CLASSES, 1))

    def forward(self, x):
        return self.body(x)


class Sixths(nn.Module):
    """Works at multiples of 6, as nets do that join maps of a half and a third of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.three = nn.Conv2d(3, CLASSES, 2, 2), nn.Conv2d(3, CLASSES, 3, 3)

    def forward(self, x):
        half, third = self.two(x), self.three(x)
        return F.interpolate(half, scale_factor=2.0) + F.interpolate(third, scale_factor=3.0)


class Heads(OneLogit):
    """A tuple with the logits first and auxiliary ones at an eighth of the size."""

    def forward(self, x):
        logits = super().forward(x).repeat(1, 2, 1, 1) * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
        return logits, F.avg_pool2d(logits, 8, ceil_mode=True)


class ArgmaxInside(nn.Module):
    """Gives labels."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, CLASSES, 1)

    def forward(self, x):
        return self.score(x).argmax(1)


class ExtraArgument(nn.Module):
    """Has to be told what it runs for."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, CLASSES, 1)

    def forward(self, x, inference):
        return self.score(x) if inference else x


class PooledNet(nn.Module):
    """A convolution of some stride; what `context` makes of its map is resized and joined with it."""

    def __init__(self, stride: int, joined: int, features: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, features, 3, stride, 1)
        self.mid = nn.Conv2d(features * joined, 16, 1)
        self.score = nn.Conv2d(16, CLASSES, 1)

    def context(self, y):
        raise NotImplementedError

    def forward(self, x):
        y = F.relu(self.stem(x))
        joined = [F.interpolate(pooled, y.shape[2:], mode="bilinear") for pooled in self.context(y)]
        logits = self.score(F.relu(self.mid(torch.cat([y, *joined], 1))))
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)


class PyramidPooling(PooledNet):
    """Adaptive pooling in all its forms, after a stride of 8: of small images there is less to pool than cells."""

    def __init__(self) -> None:
        super().__init__(8, 11)
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(cells) for cells in (1, 2, (3, 5), (None, 1)))
        self.maxima = nn.ModuleList(nn.AdaptiveMaxPool2d(cells) for cells in (1, 4, (None, 2)))

    def context(self, y):
        by_module = [pool(y) for pool in (*self.pools, *self.maxima)]
        return [
            *by_module,
            F.adaptive_avg_pool2d(y, output_size=[6, 6]),
            F.adaptive_max_pool2d(y, (2, 3)),
            F.adaptive_avg_pool2d(y, (y.shape[2] // 2 + 1, 2)),
        ]


class WidePools(PooledNet):
    """Pools with wide kernels and strides, as in DDRNet: a map of small images is 1x1 after them."""

    def __init__(self) -> None:
        super().__init__(32, 4)
        self.pools = nn.ModuleList(nn.AvgPool2d(kernel, kernel // 2, kernel // 2) for kernel in (5, 9, 17))

    def context(self, y):
        return [pool(y) for pool in self.pools]


class PoolBySize(PooledNet):
    """Global pooling by kernels that are the size of the map, as in BiSeNet and STDC."""

    def __init__(self) -> None:
        super().__init__(2, 4)

    def context(self, y):
        height, width = y.shape[-2:]
        return [
            F.avg_pool2d(y, y.size()[2:]),
            F.max_pool2d(y, kernel_size=(height, width)),
            F.avg_pool2d(y, (2, width)),
        ]


class PoolByComputedKernel(PooledNet):
    """Kernels that are numbers made of the size of the map, as in older PSPNets and ICNet."""

    def __init__(self) -> None:
        super().__init__(2, 3)

    def context(self, y):
        kernel = (int(y.shape[2] / 3), int(y.shape[3] / 2))
        return [F.avg_pool2d(y, kernel, stride=kernel), F.max_pool2d(y, kernel, stride=kernel, ceil_mode=True)]


class PoolByOtherFunctions(PooledNet):
    """Kernels made of the size of the map, rounded up, and functions that pool by them which few nets use."""

    def __init__(self) -> None:
        super().__init__(2, 10)

    def context(self, y):
        height, width = y.shape[-2:]
        third = (-(-height // 3), -(-width // 3))
        row, rows = y.mean(2), y.flatten(2)  # [N, C, W] and [N, C, H W]
        return [
            F.avg_pool2d(y, third, ceil_mode=True),
            F.avg_pool2d(y, third, divisor_override=7),
            F.avg_pool2d(y, 3, 2, 1, divisor_override=7),
            F.avg_pool2d(y, 3, 2, 1, ceil_mode=True, divisor_override=7),
            F.lp_pool2d(y, 2, (height, width)),
            F.interpolate(y, scale_factor=1.75, mode="area"),
            F.interpolate(y, scale_factor=0.75, mode="bilinear", recompute_scale_factor=True),
            F.avg_pool1d(row, third[1], stride=1).unsqueeze(2),
            F.max_pool1d(rows, height * width, stride=1).unsqueeze(2),
        ]


class Rounding(PooledNet):
    """Makes a number of a size in a way that cannot be traced."""

    def __init__(self) -> None:
        super().__init__(2, 2)

    def context(self, y):
        return [F.avg_pool2d(y, (max(1, int(float(y.shape[2]) / 3)), 1))]


class PoolIndices(PooledNet):
    """Adaptive max pooling that gives indices too."""

    def __init__(self) -> None:
        super().__init__(2, 2)

    def context(self, y):
        maxima, indices = F.adaptive_max_pool2d(y, 2, return_indices=True)
        return [maxima * indices.sign()]


class Unpooling(nn.Module):
    """Enlarges a map to where its maxima were, as SegNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, 2, return_indices=True), nn.MaxUnpool2d(2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.first(image).relu()
        pooled, indices = self.pool(features)
        return self.last(self.unpool(pooled, indices, output_size=features.shape))


class OneLayer(nn.Module):
    """Nothing but a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.only(image)


class NoConvolution(nn.Module):
    """Classes by colour, without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image, self.bias - image], 1)


class HidesModules(nn.Module):
    """Keeps a list under the name of a method of nn.Module, as ESPNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1)
        self.modules = [self.first, self.last]  # type: ignore[assignment]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.modules[1](self.modules[0](image).relu())


def huge() -> nn.Module:
    """A net with 2.4 GB of weights, which take no memory."""
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 20_000, 1), nn.Conv2d(20_000, 30_000, 1))
