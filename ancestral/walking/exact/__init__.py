"""Exact numerics: Programs, encoders and decoders in whole numbers, the same on every machine."""
