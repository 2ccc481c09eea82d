"""The methods of other papers once more: plain Python numbers and loops, sharing nothing with the package.

Each takes one frame's visual tokens as lists, and a count.
"""

import math
from types import SimpleNamespace

from reference import class_attention, cosine, dot, mean, percentile


def frames_of(tokens):
    """The frames of some visual tokens in double precision; each has its class token, or all have one, and
    the words where no relevance is given."""
    frames, rows, columns = tokens.grid
    size = rows * columns
    values = {
        "features": tokens.features.double().tolist(),
        "keys": tokens.keys.double().tolist(),
        "relevance": [] if tokens.relevance is None else tokens.relevance.double().tolist(),
    }
    words = tokens.text().double().tolist() if tokens.text and tokens.relevance is None else []
    own, found = tokens.class_key.ndim == 2, []
    for n in range(frames):
        of_class_token = SimpleNamespace(
            queries=tokens.queries[n : n + 1] if own else tokens.queries,
            class_key=tokens.class_key[n] if own else tokens.class_key,
            keys=tokens.keys[n * size : (n + 1) * size],
        )
        frame = SimpleNamespace(**{name: value[n * size : (n + 1) * size] for name, value in values.items()})
        frame.attention = class_attention(of_class_token, heads=tokens.heads)
        frame.class_feature = (tokens.class_feature[n] if own else tokens.class_feature).double().tolist()
        frame.heads, frame.size, frame.columns = tokens.heads, size, columns
        frame.words = words
        found.append(frame)
    return found


def frame_by_frame(method, tokens, count, **options):
    """Places in the whole video."""
    frames, places = frames_of(tokens), []
    for number, frame in enumerate(frames):
        share = count * (number + 1) // len(frames) - count * number // len(frames)
        if share:
            places += [number * frame.size + place for place in method(frame, share, **options)]
    return places


def best(scores, count, among=None):
    among = range(len(scores)) if among is None else among
    return sorted(among, key=lambda place: -scores[place])[:count]


def divprune(frame, count):
    def distance(one, other):
        return 1 - cosine(frame.features[one], frame.features[other])

    everyone = range(frame.size)
    nearest = [min((distance(i, j) for j in everyone if j != i), default=0) for i in everyone]
    chosen = [max(everyone, key=lambda i: nearest[i])]
    while len(chosen) < count:
        free = [i for i in everyone if i not in chosen]
        chosen.append(max(free, key=lambda i: min(distance(i, j) for j in chosen)))
    return sorted(chosen)


def cdpruner(frame, count, theta=None):
    """The determinant itself, by elimination, where the package updates gains."""
    relevance = frame.relevance
    if theta is not None:
        relevance = [math.exp(theta / (2 * (1 - theta)) * r) for r in relevance]

    def kernel(i, j):
        return relevance[i] * cosine(frame.features[i], frame.features[j]) * relevance[j]

    chosen = []
    while len(chosen) < count:
        free = [i for i in range(frame.size) if i not in chosen]
        gains = {i: determinant([[kernel(a, b) for b in [*chosen, i]] for a in [*chosen, i]]) for i in free}
        chosen.append(max(free, key=lambda i: gains[i]))
    return sorted(chosen)


def determinant(matrix):
    rows, product = [row[:] for row in matrix], 1.0
    for step in range(len(rows)):
        pivot = rows[step][step]
        product *= pivot
        for below in range(step + 1, len(rows)):
            factor = rows[below][step] / pivot
            rows[below] = [b - factor * s for b, s in zip(rows[below], rows[step], strict=True)]
    return product


def scope(frame, count, alpha=1.0):
    everyone = range(frame.size)
    chosen, covered = [], [0.0] * frame.size
    while len(chosen) < count:
        gains = {
            i: sum(max(0.0, cosine(frame.features[i], frame.features[j]) - covered[j]) for j in everyone)
            * frame.attention[i] ** alpha
            for i in everyone
            if i not in chosen
        }
        new = max(gains, key=gains.get)
        chosen.append(new)
        covered = [max(covered[j], cosine(frame.features[new], frame.features[j])) for j in everyone]
    return sorted(chosen)


def vispruner(frame, count, important=0.5, step=8):
    ranked = best(frame.attention, frame.size)
    kept, rest = ranked[: int(count * important)], ranked[int(count * important) :]
    if len(kept) == count:
        return sorted(kept)
    while len(rest) > count - len(kept):
        candidates, others = rest[0::2], rest[1::2]

        def twin(place, others=others):
            return max(cosine(frame.features[place], frame.features[other]) for other in others)

        candidates = sorted(candidates, key=lambda place: -twin(place))
        rest = candidates[min(step, len(rest) - (count - len(kept))) :] + others
    return sorted(kept + rest)


def visionzip(frame, count, contextual=None, class_token=True):
    """Rows of features, the class token's first."""
    contextual = round(count * 5 / 32) if contextual is None else contextual
    dominant = sorted(best(frame.attention, count - contextual - class_token))
    rest = [place for place in range(frame.size) if place not in dominant]
    targets = rest[:: max(1, len(rest) // max(1, contextual))][:contextual]
    width = len(frame.keys[0]) // frame.heads
    metric = [
        [sum(key[head * width + i] for head in range(frame.heads)) / frame.heads for i in range(width)]
        for key in frame.keys
    ]
    members = {target: [] for target in targets}
    for place in rest if targets else []:
        if place not in targets:
            owner = max(targets, key=lambda target: cosine(metric[place], metric[target]))
            members[owner].append(place)
    rows = [frame.class_feature] if class_token else []
    rows += [frame.features[place] for place in dominant]
    for target, owned in members.items():
        row = frame.features[target]
        if owned:
            average = mean(frame.features, [1.0] * frame.size, owned)
            row = [own + other for own, other in zip(row, average, strict=True)]
        rows.append(row)
    return rows


def fastervlm(frame, count):
    return sorted(best(frame.attention, count))


def dart(frame, count, pivots=8):
    norms = [sum(abs(value) for value in key) for key in frame.keys]
    leaders = best(norms, min(pivots, count))
    chosen, others = list(leaders), count - min(pivots, count)
    for number, pivot in enumerate(leaders):
        share = others * (number + 1) // len(leaders) - others * number // len(leaders)
        free = [i for i in range(frame.size) if i not in chosen]
        chosen += sorted(free, key=lambda i: cosine(frame.features[pivot], frame.features[i]))[:share]
    return sorted(chosen)


def holov(frame, count, crops=16):
    """The official score with its variance term, which the package leaves out."""
    crops = min(crops, frame.size)
    parts, start = [], 0
    for number in range(crops):
        size = frame.size // crops + (number < frame.size % crops)
        parts.append(range(start, start + size))
        start += size
    scores = []
    for part in parts:
        variance = {}
        for i in part:
            similar = [cosine(frame.features[i], frame.features[j]) if i != j else 0.0 for j in part]
            middle = sum(similar) / (len(part) - 1)
            variance[i] = sum((value - middle) ** 2 for value in similar) / (len(part) - 1)
        attention = sum(frame.attention[i] for i in part) / len(part) * 1e3
        scale = attention / (sum(variance.values()) / len(part) + 1e-6)
        scores.append(sum(frame.attention[i] * 1e3 + 0.09 * variance[i] * scale for i in part) / len(part))
    return within(parts, frame.attention, shared_out(count, scores), count)


def shared_out(count, shares):
    shares = shares if sum(shares) else [1] * len(shares)
    budgets = [math.floor(count * share / sum(shares)) for share in shares]
    for part in best(shares, count - sum(budgets)):
        budgets[part] += 1
    return budgets


def within(parts, scores, budgets, count):
    chosen = [i for part, budget in zip(parts, budgets, strict=True) for i in best(scores, budget, part)]
    others = [i for i in range(len(scores)) if i not in chosen]
    return sorted(chosen + best(scores, count - len(chosen), others))


# of several frames at once


def hired(tokens, count, alpha=0.5):
    attention = [value for frame in frames_of(tokens) for value in frame.attention]
    size = tokens.grid[1] * tokens.grid[2]
    parts = [range(start, start + size) for start in range(0, len(attention), size)]
    if len(parts) == 1:
        return sorted(best(attention, count))
    whole = max(min(int(count * alpha), size), count - (len(parts) - 1) * size)
    areas = [0] * (len(parts) - 1)
    for place in best(attention, int(size * (1 - alpha)), range(size)):
        areas[place * len(areas) // size] += 1
    return within(parts, attention, [whole, *shared_out(count - whole, areas)], count)


def trim(tokens, count=None, sharpness=50.0, iqr=1.5):
    relevance, features = tokens.relevance.double().tolist(), tokens.features.double().tolist()
    if count is None:
        powers = [math.exp(sharpness * r) for r in relevance]
        scores = [power / sum(powers) for power in powers]
        q1, q3 = percentile(scores, 25), percentile(scores, 75)
        count = sum(score > q3 + iqr * (q3 - q1) for score in scores) or max(1, len(scores) // 18)
    chosen = sorted(best(relevance, count))
    rest = [i for i in range(len(features)) if i not in chosen]
    return [features[i] for i in chosen] + [mean(features, [1.0] * len(features), rest)]


def evs(tokens, count):
    features, size = tokens.features.double().tolist(), tokens.grid[1] * tokens.grid[2]
    count = max(count, size)
    change = {i: 1 - cosine(features[i], features[i - size]) for i in range(size, len(features))}
    return [*range(size), *sorted(best(change, count - size, change))]


def vidcom2(tokens, count, temperature=0.01):
    features, frames = tokens.features.double().tolist(), tokens.grid[0]
    size, channels = len(features) // frames, len(features[0])
    spread = []
    for channel in range(channels):
        values = [row[channel] for row in features]
        middle = sum(values) / len(values)
        spread.append(sum((value - middle) ** 2 for value in values) / len(values))
    steady = sorted(range(channels), key=lambda channel: spread[channel])[: channels // 2]
    rows = [[row[channel] for channel in steady] for row in features]
    rows = [[value / math.sqrt(dot(row, row)) for value in row] for row in rows]

    def resemblance(places):
        centre = [sum(rows[i][c] for i in places) / len(places) for c in range(len(steady))]

        def like(i):
            distance = sum((value - c) ** 2 for value, c in zip(rows[i], centre, strict=True))
            return sum(math.exp(-distance / (2 * 2.0**k)) for k in (-3, -2, -1, 0, 1))

        return like

    of_video = resemblance(range(len(rows)))
    parts = [range(n * size, (n + 1) * size) for n in range(frames)]
    unlike = [-sum(of_video(i) for i in part) / size / temperature for part in parts]
    powers = [math.exp(value - max(unlike)) for value in unlike]
    shares = [1 + power / sum(powers) - 1 / frames for power in powers]
    score = [-of_video(i) - resemblance(part)(i) for part in parts for i in part]
    return within(parts, score, shared_out(count, shares), count)


def medoids(frames, count=None, cover=0.9, most=0.25):
    """Places in the whole video: each time the token that adds most, of a frame that has not three times its
    even share yet."""
    available, weight = sum(frame.size for frame in frames), sum(sum(frame.attention) for frame in frames)
    limit = max(1, int(most * available)) if count is None else count
    share = limit if len(frames) == 1 else 3 * math.ceil(limit / len(frames))
    alike = [[[max(0.0, cosine(one, two)) for two in frame.keys] for one in frame.keys] for frame in frames]
    covered = [[0.0] * frame.size for frame in frames]
    chosen, reached = [[] for _ in frames], 0.0
    while sum(map(len, chosen)) < limit and not (count is None and reached >= cover):
        gains = {
            (n, i): sum(
                attention * max(0.0, similarity - already)
                for attention, similarity, already in zip(
                    frame.attention, alike[n][i], covered[n], strict=True
                )
            )
            / weight
            for n, frame in enumerate(frames)
            for i in range(frame.size)
            if i not in chosen[n] and len(chosen[n]) < share
        }
        n, i = max(gains, key=gains.get)
        reached += gains[n, i]
        chosen[n].append(i)
        covered[n] = [max(pair) for pair in zip(covered[n], alike[n][i], strict=True)]
    starts = [sum(frame.size for frame in frames[:n]) for n in range(len(frames))]
    return sorted(start + i for start, places in zip(starts, chosen, strict=True) for i in places)


def standing_for(frames, places):
    """The kept place of each patch of a video: the most similar key, of its own frame if it has any."""
    keys = [key for frame in frames for key in frame.keys]
    own = [n for n, frame in enumerate(frames) for _ in frame.keys]

    def nearest(patch):
        near = [place for place in places if own[place] == own[patch]] or places
        return patch if patch in near else max(near, key=lambda place: cosine(keys[patch], keys[place]))

    return list(map(nearest, range(len(keys))))


def damped(frames, places, merge, weights):
    """Rows of features: each kept token moved to the weighted mean of the others that it stands for, at its
    own length."""
    features, standing = [row for frame in frames for row in frame.features], standing_for(frames, places)
    rows = []
    for place in places:
        others = [patch for patch, kept in enumerate(standing) if kept == place and patch != place]
        row = features[place]
        if others and merge:
            centre = mean(features, weights, others)
            row = [own + merge * (other - own) for own, other in zip(row, centre, strict=True)]
            length = math.sqrt(dot(features[place], features[place]) / dot(row, row))
            row = [value * length for value in row]
        rows.append(row)
    return rows
