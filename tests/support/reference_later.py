"""Methods of 2026, and a baseline of serving engines, once more: plain Python numbers and loops, sharing
nothing with the package.

Each takes one frame's visual tokens as lists (`reference_methods.frames_of`), and a count.
"""

from reference import cosine as alike
from reference_methods import best


def cosine(frame, count):
    everyone = range(frame.size)
    mean = [sum(alike(frame.features[i], frame.features[j]) for j in everyone) for i in everyone]
    return sorted(best([-value for value in mean], count))
