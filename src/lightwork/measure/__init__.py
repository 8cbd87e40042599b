"""Measuring: one function (probe, advise), pool sizes (sweep), and what the figures mean."""
