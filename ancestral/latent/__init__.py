"""Latent-variable models: top-down passes, and the models composed of them."""
