"""Which layer gets which precision, from what each costs on the user's images; above quant, build and evaluate."""
