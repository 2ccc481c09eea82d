"""Accuracy against tokens: benchmarks, scoring, an interruptible harness, paired statistics, reports."""
