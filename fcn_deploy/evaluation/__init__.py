"""What an engine costs: parity, latency and accuracy, measured on Backends with numpy alone."""
