"""What is written to files and read back: plain values, which need numpy at most."""
