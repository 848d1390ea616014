"""Autoregressive networks, a paper each, and their configurations."""
