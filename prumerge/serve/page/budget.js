// A slider whose steps are as far apart as they look: counts of tokens on a logarithmic scale.

/** All counts that the slider stops at, from 1 to `most`. */
export function stops(most) {
  const found = new Set([1, most]);
  for (let count = 1; count < most; count *= 1.08) found.add(Math.round(count));
  for (let side = 2; side * side < most; side += 1) found.add(side * side); // those of even grids
  return [...found].sort((a, b) => a - b);
}

/** The place among the stops that is nearest to a count. */
export const nearest = (all, count) =>
  all.reduce((best, stop, at) => (Math.abs(stop - count) < Math.abs(all[best] - count) ? at : best), 0);
