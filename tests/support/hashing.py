"""Reformer's buckets once more: plain Python numbers and loops, sharing nothing with the package."""

import math

from reference import cosine, dot


def lsh(keys, count, rotations, line):
    """For each group its representative and its members, in the order of representatives; `count` None: as
    many as there are. `rotations` are lists of directions, one list for each round."""
    centre = [sum(channel) / len(keys) for channel in zip(*keys, strict=True)]
    keys = [[value - mean for value, mean in zip(key, centre, strict=True)] for key in keys]
    keys = [[value / math.sqrt(dot(key, key)) for value in key] for key in keys]
    codes = [tuple(bucket(key, rotation) for rotation in rotations) for key in keys]
    groups = [[i for i in range(len(keys)) if codes[i] == code] for code in sorted(set(codes))]
    if count is not None and len(groups) > count:
        groups.sort(key=len, reverse=True)
        groups, others = groups[:count], groups[count:]
        centres = [middle(keys, group) for group in groups]
        for i in (i for group in others for i in group):
            near = [cosine(keys[i], one) for one in centres]
            groups[near.index(max(near))].append(i)
    elif count is not None:
        parts = [1] * len(groups)
        while sum(parts) < count:
            share = [len(group) / n if n < len(group) else 0 for group, n in zip(groups, parts, strict=True)]
            parts[share.index(max(share))] += 1
        groups = [
            part for group, n in zip(groups, parts, strict=True) for part in divided(keys, group, n, line)
        ]
    found = []
    for group in groups:
        own = middle(keys, group)
        near = [cosine(keys[i], own) for i in sorted(group)]
        place = next(i for i, value in zip(sorted(group), near, strict=True) if value > max(near) - 1e-5)
        found.append((place, sorted(group)))
    return sorted(found)


def bucket(key, rotation):
    turned = [dot(key, direction) for direction in rotation]
    turned += [-value for value in turned]
    return turned.index(max(turned))


def middle(keys, group):
    return [sum(channel) for channel in zip(*(keys[i] for i in group), strict=True)]


def divided(keys, group, parts, line):
    ordered = sorted(group, key=lambda i: dot(keys[i], line))
    return [
        [i for rank, i in enumerate(ordered) if rank * parts // len(group) == part] for part in range(parts)
    ]
