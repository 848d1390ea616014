"""Engines that run what a model is lowered to, with the same results on every machine."""
