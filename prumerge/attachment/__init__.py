"""Reduction for code that calls `forward` and `generate` itself: attach to a model, and detach."""
