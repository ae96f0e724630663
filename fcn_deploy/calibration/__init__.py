"""Images to ranges: a model is run over images, and what its tensors hold is kept as histograms."""
