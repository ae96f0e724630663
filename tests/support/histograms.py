"""Values of tensors for hypothesis, and the histograms that calibration makes of them."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcn_deploy.calibration.histogram import HistogramBuilder

USUAL = st.floats(-1000, 1000, width=32)
POSITIVE = st.floats(0, 64, width=32)
NEGATIVE = st.floats(-64, -0.5, width=32)
VALUES = st.sampled_from([USUAL, POSITIVE, NEGATIVE]).flatmap(
    lambda elements: hnp.arrays(np.float32, st.integers(1, 400), elements=elements)
)


def histogram_of(values):
    builder = HistogramBuilder()
    builder.add(np.asarray(values, np.float32))
    return builder.build()
