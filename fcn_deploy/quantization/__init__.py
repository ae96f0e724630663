"""Quantisation: observing ranges once, choosing methods later, emitting Q/DQ graphs for each target.

`observe` and `emit` never meet: what one learns reaches the other as a ranges file.
"""
