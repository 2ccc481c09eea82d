"""PruMerge and PruMerge+ once more: plain Python numbers and loops, written from the description of the paper
and of its official code, sharing nothing with the package."""

import math

CODE = {"heads": "joint", "order": "score", "candidates": "others", "merge": "sum", "extra_token": True}
PAPER = {
    "heads": "split",
    "order": "spatial",
    "candidates": "pruned",
    "merge": "average",
    "extra_token": False,
}


def prumerge(tokens, *, plus=False, variant="code", k=32, keep=None, iqr=1.5, **options):
    """Rows of reduced features, and the place of each."""
    bounds = options.pop("min_keep", 1), options.pop("max_keep", None)
    options = {**{"code": CODE, "paper": PAPER}[variant], **options}
    features, keys = tokens.features.double().tolist(), tokens.keys.double().tolist()
    count = len(features)
    scores = class_attention(tokens, heads=tokens.heads if options["heads"] == "split" else 1)

    chosen = select(scores, plus, keep, iqr, *bounds)
    if options["order"] == "spatial":
        chosen = sorted(chosen)
    pruned = [place for place in range(count) if place not in chosen]
    if k == "auto":
        k = math.ceil(len(pruned) / len(chosen))

    rows = []
    for place in chosen:
        others = pruned if options["candidates"] == "pruned" else range(count)
        others = [other for other in others if other != place]
        neighbours = sorted(others, key=lambda other: -cosine(keys[place], keys[other]))[:k]
        if options["merge"] == "sum":
            rows.append(
                [
                    own + extra
                    for own, extra in zip(features[place], total(features, scores, neighbours), strict=True)
                ]
            )
        else:
            rows.append(mean(features, scores, [place, *neighbours]))
    if options["extra_token"] and pruned:
        rows.append((total if options["merge"] == "sum" else mean)(features, scores, pruned))
        chosen = [*chosen, max(pruned, key=lambda place: scores[place])]
    return rows, chosen


def class_attention(tokens, heads):
    """Softmax over the class token and all patches, averaged over heads; the patches' part."""
    query = tokens.queries.double()[0].tolist()
    keys = [tokens.class_key.double().tolist(), *tokens.keys.double().tolist()]
    width = len(query) // heads
    mean = [0.0] * len(keys)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = [dot(query[part], key[part]) / math.sqrt(width) for key in keys]
        powers = [math.exp(logit) for logit in logits]
        for place, power in enumerate(powers):
            mean[place] += power / sum(powers) / heads
    return mean[1:]


def select(scores, plus, keep, iqr, min_keep, max_keep):
    count = len(scores)
    ranked = sorted(range(count), key=lambda place: -scores[place])
    if keep is not None:
        return half_and_half(ranked, keep) if plus else ranked[:keep]
    fence = percentile(scores, 75) + iqr * (percentile(scores, 75) - percentile(scores, 25))
    outliers = sum(score > fence for score in scores) or max(1, count // 18)
    if plus:
        important = ranked[:outliers]
        stride = max(2, int(int(count / outliers) / 3))
        chosen = important + [place for place in range(0, count - 1, stride) if place not in important]
    else:
        chosen = ranked[:outliers]
    bounded = min(max(len(chosen), min_keep), max_keep or count, count)
    if bounded != len(chosen):
        return half_and_half(ranked, bounded) if plus else ranked[:bounded]
    return chosen


def half_and_half(ranked, keep):
    samples = keep // 2
    important = ranked[: keep - samples]
    rest = sorted(ranked[keep - samples :])
    share = len(rest) / samples if samples else 0
    return important + [rest[math.floor((i + 0.5) * share + 1e-9)] for i in range(samples)]


def percentile(values, percent):
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def dot(left, right):
    return sum(x * y for x, y in zip(left, right, strict=True))


def cosine(left, right):
    return dot(left, right) / math.sqrt(dot(left, left)) / math.sqrt(dot(right, right))


def total(features, scores, places):
    return [sum(scores[p] * features[p][channel] for p in places) for channel in range(len(features[0]))]


def mean(features, scores, places):
    weight = sum(scores[place] for place in places)
    return [value / weight for value in total(features, scores, places)]
