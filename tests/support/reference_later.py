"""Methods of 2026, and a baseline of serving engines, once more: plain Python numbers and loops, sharing
nothing with the package.

Each takes one frame's visual tokens as lists (`reference_methods.frames_of`), and a count.
"""

import math

import numpy as np
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


def eadp(frame, count, beta=1.0, **options):
    relevance = telling(frame, **options) if frame.words else frame.relevance
    low, high = min(relevance), max(relevance)
    weight = smoothed([(value - low + 1e-6) / (high - low + 1e-6) for value in relevance], frame.columns)
    everyone, chosen, covered = range(frame.size), [], [0.0] * frame.size
    near = [[(1 + alike(one, two)) / 2 for two in frame.features] for one in frame.features]
    while len(chosen) < count:
        gains = {
            i: sum(weight[j] ** beta * max(0.0, near[i][j] - covered[j]) for j in everyone)
            for i in everyone
            if i not in chosen
        }
        new = max(gains, key=gains.get)
        chosen.append(new)
        covered = [max(covered[j], near[new][j]) for j in everyone]
    return sorted(chosen)


def telling(frame, alpha=0.5, words=0.2, inverted=True):
    """Relevance by the words with the lowest entropies."""
    sign = -1 if inverted else 1
    centre = [sum(channel) / len(frame.words) for channel in zip(*frame.words, strict=True)]
    pointing = [[sign * alike(patch, word) for patch in frame.features] for word in frame.words]
    entropies = []
    for match in pointing:
        powers = [math.exp(100 * (value - max(match))) for value in match]
        shares = [power / sum(powers) for power in powers]
        entropies.append(-sum(share * math.log(share) for share in shares if share))
    kept = best([-value for value in entropies], max(1, math.floor(words * len(frame.words) + 1e-9)))
    lowest = min(entropies)
    counts = {word: math.exp((lowest - entropies[word]) / 0.01) for word in kept}
    return [
        alpha * sign * alike(patch, centre)
        + (1 - alpha) * sum(counts[word] * pointing[word][i] for word in kept) / sum(counts.values())
        for i, patch in enumerate(frame.features)
    ]


def smoothed(values, columns):
    rows = len(values) // columns
    if min(rows, columns) < 2:
        return values

    def mirrored(place, size):
        return -place if place < 0 else 2 * size - 2 - place if place >= size else place

    def around(row, column):
        total = weights = 0.0
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                weight = math.exp(-(down**2 + across**2) / 2)
                at = mirrored(row + down, rows) * columns + mirrored(column + across, columns)
                total, weights = total + weight * values[at], weights + weight
        return total / weights

    return [around(place // columns, place % columns) for place in range(len(values))]


def anchorprune(frame, count, least=None, most=0.5, novelty=0.2, patience=3):
    relevance = frame.relevance
    if frame.words:
        relevance = [max(alike(patch, word) for word in frame.words) for patch in frame.features]

    def distance(one, others):
        return min(1 - alike(frame.features[one], frame.features[other]) for other in others)

    ranked = best(relevance, frame.size)
    least = min(count, max(1, round(count * 5 / 32)) if least is None else least)
    chosen, seen = ranked[:least], 0
    for place in ranked[least : int(most * count)]:
        if seen == patience:
            break
        chosen.append(place)
        seen += distance(place, ranked[:least]) > novelty
    while len(chosen) < count:
        free = [place for place in range(frame.size) if place not in chosen]
        chosen.append(max(free, key=lambda i: frame.attention[i] * min(1.0, distance(i, chosen))))
    return sorted(chosen)


def prunesid(frame, count, class_token=False):
    """Places of patches; a class token that is kept is one of `count`."""
    everyone, patches = range(frame.size), count - class_token
    values = [[1 / (1 + math.exp(-value)) for value in row] for row in frame.features]
    centred = [[value - sum(row) / len(row) for value in row] for row in values]
    parts = min(max(1, count // 4), len(centred), len(centred[0]))
    _, _, components = np.linalg.svd(np.array(centred).T)
    groups = [[] for _ in range(parts)]
    for place in everyone:
        groups[max(range(parts), key=lambda part: abs(components[part, place]))].append(place)
    near = [[alike(one, two) for two in frame.features] for one in frame.features]
    pairs = [near[i][j] for i in everyone for j in range(i)]
    limit = count / 32 * sum(pairs) / max(1, len(pairs))

    ranked, surviving = [], []
    for group in groups:
        survivors = []
        for place in best(frame.attention, len(group), group):
            if all(near[place][other] <= limit for other in survivors):
                survivors.append(place)
        others = [place for place in group if place not in survivors]
        ranked.append(survivors + best(frame.attention, len(others), others))
        surviving.append(len(survivors))

    most = [min(5 * math.ceil(count / 64), number) for number in surviving]
    while sum(most) < count:
        most = [min(number + 1, len(group)) for number, group in zip(most, groups, strict=True)]
    budgets = [min(1, len(group)) for group in groups]
    free, so_far, given = patches - sum(budgets), 0, 0
    for part, number in enumerate(surviving):
        so_far += number
        end = round(so_far * free / sum(surviving))
        budgets[part] = min(budgets[part] + end - given, most[part])
        given = end
    for part in best(surviving, parts):
        budgets[part] += min(most[part] - budgets[part], patches - sum(budgets))
    chosen = [place for own, budget in zip(ranked, budgets, strict=True) for place in own[:budget]]
    return sorted(chosen)
