import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.calibration.channel_means import MeanBuilder
from fcn_deploy.errors import InputError


def means_of(images):
    builder = MeanBuilder()
    for image in images:
        builder.add(image)
    return builder.build()


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    channels=st.integers(1, 4),
    seed=st.integers(0, 1000),
    order=st.randoms(),
)
def test_every_pixel_has_the_same_weight_for_images_of_any_size_and_order(sizes, channels, seed, order):
    random = np.random.default_rng(seed)
    images = [random.normal(1, 9, (n, channels, h, w)).astype(np.float32) for n, h, w in sizes]
    pixels = np.concatenate([np.moveaxis(image, 1, 0).reshape(channels, -1) for image in images], axis=1)
    found = means_of(images)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, pixels.mean(axis=1, dtype=np.float64), rtol=1e-12, atol=1e-12)
    order.shuffle(images)
    np.testing.assert_allclose(means_of(images), found, rtol=1e-12, atol=1e-12)


def test_the_mean_of_many_small_values_is_exact():
    image = np.full((1, 1, 1000, 1000), 0.1, np.float32)
    np.testing.assert_allclose(means_of([image] * 20), np.float64(np.float32(0.1)), rtol=1e-12)


def test_means_of_nothing_are_refused():
    with pytest.raises(InputError, match="means of nothing"):
        MeanBuilder().build()
