"""Mixed precision: which layer runs in what, decided by accuracy and time on the user's images."""
