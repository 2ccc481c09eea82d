"""Reformer's buckets once more: plain Python numbers and loops, sharing nothing with the package."""

import math

from reference import cosine, dot


def lsh(keys, count, rotations, line):
    """For each group where it stands and its members, in the order of places. `rotations` are lists of
    directions, one list for each round."""
    centre = [sum(channel) / len(keys) for channel in zip(*keys, strict=True)]
    keys = [[value - mean for value, mean in zip(key, centre, strict=True)] for key in keys]
    keys = [[value / math.sqrt(dot(key, key)) for value in key] for key in keys]
    codes = [tuple(bucket(key, rotation) for rotation in rotations) for key in keys]
    groups = [[i for i in range(len(keys)) if codes[i] == code] for code in sorted(set(codes))]
    groups = [sorted(group, key=lambda i: dot(keys[i], line)) for group in groups]
    if len(groups) >= count:
        groups.sort(key=lambda group: (-len(group), group[0]))
        groups, others = groups[:count], groups[count:]
        centres = [middle(keys, group) for group in groups]
        for i in (i for group in others for i in group):
            near = [cosine(keys[i], one) for one in centres]
            groups[near.index(max(near))].append(i)
    else:
        groups = apart(groups, count)
    found = []
    for group in map(sorted, groups):
        near = [cosine(keys[i], middle(keys, group)) for i in group]
        place = next(i for i, value in zip(group, near, strict=True) if value > max(near) - 1e-5)
        found.append((place, group))
    return sorted(found)


def bucket(key, rotation):
    turned = [dot(key, direction) for direction in rotation]
    turned += [-value for value in turned]
    return turned.index(max(turned))


def middle(keys, group):
    return [sum(channel) for channel in zip(*(keys[i] for i in group), strict=True)]


def apart(groups, count):
    """One more part for the group whose parts are the largest, until there are enough."""
    parts = [1] * len(groups)
    while sum(parts) < count:
        share = {
            n: (len(group) / parts[n], -group[parts[n]])
            for n, group in enumerate(groups)
            if parts[n] < len(group)
        }
        parts[max(share, key=share.get)] += 1
    return [
        [i for rank, i in enumerate(group) if rank * own // len(group) == part]
        for group, own in zip(groups, parts, strict=True)
        for part in range(own)
    ]
