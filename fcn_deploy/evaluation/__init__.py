"""How an engine compares with a reference: parity, accuracy and latency, measured on Backends with numpy alone."""
