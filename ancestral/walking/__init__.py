"""Engines that carry out what a network was lowered to, in floating point or in whole numbers."""
