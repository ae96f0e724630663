"""Quantisation: from what calibration saw to a graph with Q/DQ, for each target.

Calibration runs once and keeps histograms (`artifacts.ranges`). From these, `methods` chooses ranges, `params` turns
ranges into scales and zero points, and `onnxruntime` or `tensorrt` emits the graph of its target.
"""
