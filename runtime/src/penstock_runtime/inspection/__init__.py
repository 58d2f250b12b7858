"""`penstock-runtime inspect`: what a model file is, without loading it."""
