"""The native engine: Programs carried out on a CPU by one compiled interpreter."""
