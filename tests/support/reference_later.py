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


def hiprune(frame, count, alpha=0.1):
    """`frame.middle` is the attention of the object layer."""
    anchors = best(frame.middle, round(alpha * count / 5))
    steps = (-1, 1) if frame.columns == frame.size else (-1, 1, -frame.columns, frame.columns)
    around = [place + step for step in steps for place in anchors]
    buffers = {min(max(place, 0), frame.size - 1) for place in around} - {*anchors}
    kept = [*anchors, *sorted(buffers)][:count]
    others = [place for place in range(frame.size) if place not in kept]
    return sorted(kept + best(frame.attention, count - len(kept), others))
