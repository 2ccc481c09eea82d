"""Reduction between the layers of a language model: layouts, attention, masks, and methods answered for."""
