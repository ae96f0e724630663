"""What is written and read back: plain values, with numpy at most."""
