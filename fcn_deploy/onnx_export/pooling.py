"""Pooling whose windows depend on the size of the map, written so that torch.export takes it at every size.

torch.export decomposes adaptive pooling to more than one cell for the one size that it traces, and takes the kernel of
a pooling for a constant. Here the graph computes from the map's size which rows and columns belong to which window.
A mean is then two small matrices, one that averages rows and one that averages columns: 5e-8 of the range from PyTorch.
A maximum gathers the rows of each window, then its columns, and is exact.

The net itself does not change: while `Pooling` is active, it takes the place of PyTorch's functions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fcn_deploy.errors import InputError

Size: TypeAlias = int  # or, while a net is traced, a SymInt, which behaves like an int


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of a pooling along one axis.

    Attributes:
        begun: Whether an element is the first of a window or comes after it, bool [windows, size].
        not_ended: Whether an element is the last of a window or comes before it, likewise.
        longest: No window has more elements.
        divisors: What the sum over a window is divided by for a mean, int64 [windows]; the number of its elements if
            None.
    """

    begun: Tensor
    not_ended: Tensor
    longest: Size
    divisors: Tensor | None = None


def adaptive_windows(size: Size, cells: Size) -> Windows:
    """Returns the windows of adaptive pooling: they cover the axis, and may overlap by one element.

    Window i is from `floor(i * size / cells)` to before `ceil((i + 1) * size / cells)`, here without a division.

    Args:
        size: Elements of the axis, at least 1.
        cells: Windows, at least 1; there may be more of them than elements.
    """
    window, element = torch.arange(cells).unsqueeze(1), torch.arange(size)
    return Windows((element + 1) * cells > window * size, element * cells < (window + 1) * size, size // cells + 2)


def plain_windows(
    size: Size, kernel: Size, stride: Size, padding: Size, *, ceil_mode: bool = False, counts_padding: bool = True
) -> Windows:
    """Returns the windows of a pooling of one kernel and stride.

    Args:
        size: Elements of the axis.
        kernel: Elements of a window, padding included.
        stride: From one window to the next.
        padding: Elements beyond each end of the axis.
        ceil_mode: Whether a window may end beyond the padding.
        counts_padding: Whether padding counts in a mean, as zeros.
    """
    count = (size + 2 * padding - kernel + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode:  # no window begins beyond the axis and the padding before it
        count = min(count, (size + padding - 1) // stride + 1)
    begins, element = torch.arange(count) * stride - padding, torch.arange(size)
    ends = begins + kernel
    return Windows(
        element >= begins.unsqueeze(1),
        element < ends.unsqueeze(1),
        kernel,
        ends.clamp(max=size + padding) - begins if counts_padding else None,
    )


def mean(maps: Tensor, rows: Windows | None, columns: Windows | None) -> Tensor:
    """Averages maps over windows.

    Args:
        maps: float [..., H, W].
        rows: Windows of rows; None leaves them as they are.
        columns: Windows of columns; likewise.
    """
    if rows is not None:
        maps = _averaging(rows, maps.dtype) @ maps
    if columns is not None:
        maps = maps @ _averaging(columns, maps.dtype).transpose(0, 1)
    return maps


def _averaging(windows: Windows, dtype: torch.dtype) -> Tensor:
    """A matrix [windows, size] whose product with elements is the mean of each window."""
    inside = (windows.begun & windows.not_ended).to(dtype)
    divisors = inside.sum(1) if windows.divisors is None else windows.divisors.to(dtype)
    return inside / divisors.unsqueeze(1)


def maximum(maps: Tensor, rows: Windows | None, columns: Windows | None) -> Tensor:
    """Takes the largest value of windows of maps.

    Args:
        maps: float [..., H, W].
        rows: Windows of rows; None leaves them as they are.
        columns: Windows of columns; likewise.
    """
    for axis, windows in ((-2, rows), (-1, columns)):
        if windows is not None:
            first, last = _count(~windows.begun), _count(windows.not_ended) - 1
            # Every window gets as many elements as the longest: the last of a shorter one several times.
            elements = torch.minimum(first.unsqueeze(1) + torch.arange(windows.longest), last.unsqueeze(1))
            gathered = maps.index_select(axis, elements.flatten())
            maps = torch.unflatten(gathered, axis, elements.shape).amax(axis)
    return maps


def _count(elements: Tensor) -> Tensor:
    """How many are true in each row, int64; added up in float32, which TensorRT's parser takes and counts exactly."""
    return elements.to(torch.float32).sum(1).to(torch.int64)


class Pooling(TorchFunctionMode):
    """While it is active, pooling with windows that depend on the size of the map is computed from that size.

    All other pooling is left to PyTorch: of one cell, which is a plain mean or maximum, and with kernels that are
    numbers.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls a function of PyTorch, or what takes its place."""
        kwargs = kwargs or {}
        replacement = _REPLACEMENTS.get(getattr(func, "__name__", ""))
        result = None if replacement is None else replacement(*args, **kwargs)
        return func(*args, **kwargs) if result is None else result


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[-1]) if isinstance(value, Sequence) else (value, value)


def _adaptive_mean(maps: Tensor, output_size: Any) -> Tensor | None:
    return _adaptive(maps, _pair(output_size), mean, functional.avg_pool2d)


def _adaptive_maximum(maps: Tensor, output_size: Any, return_indices: bool = False) -> Tensor | None:
    return _adaptive(maps, _pair(output_size), maximum, functional.max_pool2d)


def _adaptive_mean_1d(maps: Tensor, output_size: Any) -> Tensor | None:
    pooled = _adaptive_mean(maps.unsqueeze(-2), (None, _pair(output_size)[0]))
    return None if pooled is None else pooled.squeeze(-2)


def _adaptive_maximum_1d(maps: Tensor, output_size: Any, return_indices: bool = False) -> Tensor | None:
    pooled = _adaptive_maximum(maps.unsqueeze(-2), (None, _pair(output_size)[0]))
    return None if pooled is None else pooled.squeeze(-2)


def _adaptive(
    maps: Tensor, output_size: tuple[Any, Any], pool: Callable[..., Tensor], pool_by_kernel: Callable[..., Tensor]
) -> Tensor | None:
    sizes = maps.shape[-2:]
    cells = [size if count is None else count for count, size in zip(output_size, sizes, strict=True)]
    if all(_is_number(count) and count == 1 for count in cells):
        return maps.amax((-2, -1), keepdim=True) if pool is maximum else None
    if all(map(_is_number, (*sizes, *cells))) and not any(map(operator.mod, sizes, cells)):
        return pool_by_kernel(maps, list(map(operator.floordiv, sizes, cells)))
    windows = (
        None if statically_known_true(size == count) else adaptive_windows(size, count)
        for size, count in zip(sizes, cells, strict=True)
    )
    return pool(maps, *windows)


def _refuse_indices(*args: Any, **kwargs: Any) -> Tensor | None:
    raise InputError(
        "adaptive max pooling that returns indices cannot be exported",
        got="return_indices=True",
        expected="the maxima alone",
        fix="leave out the indices, or pool by a kernel and a stride that are numbers, with max_pool2d",
    )


def _mean(
    maps: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor | None:
    if divisor_override is not None:
        return _sum(maps, kernel_size, stride, padding, ceil_mode) / divisor_override
    axes = _axes(maps, kernel_size, stride, padding)
    if axes is None:
        return None
    if all(axis.is_whole for axis in axes):
        return maps.mean((-2, -1), keepdim=True)
    return mean(maps, *(axis.windows(ceil_mode, count_include_pad) for axis in axes))


def _sum(maps: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> Tensor:
    """Sums windows, as for a mean with a divisor of its own, which torch's exporter leaves out."""
    if not ceil_mode and _axes(maps, kernel, stride, padding) is None:
        rows, columns = _pair(kernel)
        summed: Tensor = functional.avg_pool2d(maps, kernel, stride, padding) * (rows * columns)
        return summed
    windows = [axis.windows(ceil_mode) for axis in _each_axis(maps, kernel, stride, padding)]
    return mean(
        maps, *(replace(each, divisors=torch.ones_like(each.begun[:, 0], dtype=torch.int64)) for each in windows)
    )


def _maximum(
    maps: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    axes = _axes(maps, kernel_size, stride, padding)
    if axes is None or _pair(dilation) != (1, 1):
        return None
    if all(axis.is_whole for axis in axes):
        return maps.amax((-2, -1), keepdim=True)
    return maximum(maps, *(axis.windows(ceil_mode) for axis in axes))


def _power_mean(
    maps: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor | None:
    # Written out, because what PyTorch's function calls does not come by here.
    if _axes(maps, kernel_size, stride, 0) is None or math.isinf(norm_type):
        return None
    average = _mean(maps.pow(norm_type), kernel_size, stride, ceil_mode=ceil_mode)
    assert average is not None
    rows, columns = _pair(kernel_size)
    return (average.sign() * average.abs()).mul(rows * columns).pow(1 / norm_type)


def _mean_1d(
    maps: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor | None:
    return _as_one_row(_mean, maps, kernel_size, stride, padding, ceil_mode, count_include_pad)


def _maximum_1d(
    maps: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    return _as_one_row(_maximum, maps, kernel_size, stride, padding, _pair(dilation)[0], ceil_mode)


def _as_one_row(
    pool: Callable[..., Tensor | None], maps: Tensor, kernel: Any, stride: Any, padding: Any, *more: Any
) -> Tensor | None:
    """Pools maps float [..., L] as maps of one row."""
    steps = [_pair(value)[0] for value in (kernel, stride or kernel, padding)]
    pooled = pool(maps.unsqueeze(-2), (1, steps[0]), (1, steps[1]), (0, steps[2]), *more)
    return None if pooled is None else pooled.squeeze(-2)


@dataclass(frozen=True)
class _Axis:
    """How one axis is pooled."""

    size: Size
    kernel: Size
    stride: Size
    padding: Size

    @property
    def is_whole(self) -> bool:
        """Whether there is one window, of all elements."""
        return _is_number(self.padding) and self.padding == 0 and statically_known_true(self.kernel == self.size)

    def windows(self, ceil_mode: bool, counts_padding: bool = True) -> Windows:
        return plain_windows(
            self.size, self.kernel, self.stride, self.padding, ceil_mode=ceil_mode, counts_padding=counts_padding
        )


def _axes(maps: Tensor, kernel: Any, stride: Any, padding: Any) -> tuple[_Axis, _Axis] | None:
    """How rows and columns are pooled; None if kernel, stride and padding are numbers, which PyTorch exports itself."""
    if all(map(_is_number, (*_pair(kernel), *_pair(stride or kernel), *_pair(padding)))):
        return None
    return _each_axis(maps, kernel, stride, padding)


def _each_axis(maps: Tensor, kernel: Any, stride: Any, padding: Any) -> tuple[_Axis, _Axis]:
    by_axis = (maps.shape[-2:], _pair(kernel), _pair(stride or kernel), _pair(padding))
    rows, columns = zip(*by_axis, strict=True)
    return _Axis(*rows), _Axis(*columns)


def _is_number(value: object) -> bool:
    return isinstance(value, int)  # a size that depends on the image is a SymInt


def _interpolation(
    maps: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor | None:
    if maps.ndim != 4 or not (mode == "area" or recompute_scale_factor):
        return None
    if size is None:
        pairs = zip(maps.shape[-2:], _pair(scale_factor), strict=True)
        size = [math.floor(own * factor) for own, factor in pairs]
    if mode == "area":
        return _adaptive_mean(maps, size)
    # torch's exporter goes by the factor that was given, which is not that of the sizes.
    return functional.interpolate(maps, size, None, mode, align_corners, None, antialias)


# By the names that PyTorch calls these functions itself, whichever way they are called.
_REPLACEMENTS: Mapping[str, Callable[..., Tensor | None]] = {
    "adaptive_avg_pool1d": _adaptive_mean_1d,
    "adaptive_avg_pool2d": _adaptive_mean,
    "adaptive_max_pool1d": _adaptive_maximum_1d,
    "adaptive_max_pool1d_with_indices": _refuse_indices,
    "adaptive_max_pool2d": _adaptive_maximum,
    "adaptive_max_pool2d_with_indices": _refuse_indices,
    "avg_pool1d": _mean_1d,
    "avg_pool2d": _mean,
    "interpolate": _interpolation,
    "lp_pool2d": _power_mean,
    "max_pool1d": _maximum_1d,
    "max_pool2d": _maximum,
}
