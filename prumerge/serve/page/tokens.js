// What a method kept, drawn over the picture; one token can be looked at.

const GOLDEN = 222.5; // degrees: neighbouring tokens get hues far apart

export class Tokens {
  constructor(canvas, told) {
    Object.assign(this, { canvas, told, image: null, found: null, view: "kept", chosen: -1 });
    this.context = canvas.getContext("2d");
    canvas.addEventListener("pointermove", (event) => this.#point(event));
    canvas.addEventListener("pointerdown", (event) => this.#point(event));
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.choose(-1));
    canvas.addEventListener("keydown", (event) => this.#press(event));
    canvas.addEventListener("blur", () => this.choose(-1));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** A picture, and what is kept of it: null while nobody knows. */
  show(image, found) {
    Object.assign(this, { image, found, chosen: -1 });
    this.told(-1);
    if (found) this.sizes = found.kept.map((_, token) => found.owner.filter((own) => own === token).length);
    this.draw();
  }

  look(view) {
    this.view = view;
    this.draw();
  }

  /** Look at one token, by its number; -1 at none. */
  choose(token) {
    if (token === this.chosen || !this.found) return;
    this.chosen = token;
    this.draw();
    this.told(token);
  }

  /** In words what a token stands for. */
  words(token) {
    const { kept, grid } = this.found;
    const [row, column] = [Math.floor(kept[token] / grid[1]) + 1, (kept[token] % grid[1]) + 1];
    const count = this.sizes[token];
    const stands = count === 1 ? "for its own patch" : `for ${count} patches`;
    return `Token ${token + 1} of ${kept.length}, row ${row}, column ${column}, stands ${stands}`;
  }

  draw() {
    const { canvas, context, image, found } = this;
    if (!image) return;
    const [rows, columns] = found?.grid ?? [image.naturalHeight, image.naturalWidth];
    canvas.style.setProperty("--shape", columns / rows);
    const cell = this.#fit(rows, columns, Boolean(found));
    crop(context, image);
    const data = canvas.dataset;
    Object.assign(data, { tokens: found?.visual_tokens ?? "", kept: found?.kept.length ?? "", view: this.view });
    data.token = this.chosen;
    if (!found) return;
    const { kept, owner } = found;
    const standing = new Set(kept);
    const paper = getComputedStyle(canvas).getPropertyValue("--paper").trim();
    const paint = (style, alpha, where) => {
      context.globalAlpha = alpha;
      context.fillStyle = style;
      owner.forEach((own, at) => where(own, at) && this.#cell(at, columns, cell));
      context.globalAlpha = 1;
    };
    if (this.chosen >= 0) {
      const other = (own, at) => own !== this.chosen && at !== kept[this.chosen];
      this.#grey((own, at) => other(own, at) && !standing.has(at), paint);
      paint(paper, 0.66, (own, at) => other(own, at) && !standing.has(at));
      paint(paper, 0.5, (own, at) => other(own, at) && standing.has(at));
      this.#edge(rows, columns, cell);
    } else if (this.view === "kept") {
      const lost = (_, at) => !standing.has(at);
      this.#grey(lost, paint);
      paint(paper, 0.66, lost);
    } else {
      this.#grey(() => true, paint);
      const rest = (own) => own < 0 || this.sizes[own] > owner.length / 2; // one token for all the rest
      paint(paper, 0.7, (own, at) => rest(own) && !standing.has(at));
      kept.forEach((_, token) => {
        if (!rest(token)) paint(`hsl(${(token * GOLDEN) % 360} 75% 52%)`, 0.62, (own) => own === token);
      });
      this.#outline(columns, cell);
    }
  }

  /** Let the canvas have whole pixels for each cell; returns how many a side. */
  #fit(rows, columns, exactly) {
    const { canvas } = this;
    const wide = (canvas.clientWidth || 600) * Math.min(devicePixelRatio || 1, 2);
    const cell = exactly ? Math.max(1, Math.round(wide / columns)) : wide / columns;
    const [width, height] = [Math.round(cell * columns), Math.round(cell * rows)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    return cell;
  }

  #cell(at, columns, cell) {
    this.context.fillRect((at % columns) * cell, Math.floor(at / columns) * cell, cell, cell);
  }

  #grey(where, paint) {
    this.context.globalCompositeOperation = "saturation";
    paint("#808080", 1, where);
    this.context.globalCompositeOperation = "source-over";
  }

  #outline(columns, cell) {
    const { context, found } = this;
    const thick = Math.max(1, cell / 12);
    context.strokeStyle = "rgb(0 0 0 / 0.75)";
    context.lineWidth = thick;
    for (const at of found.kept) {
      const [x, y] = [(at % columns) * cell, Math.floor(at / columns) * cell];
      context.strokeRect(x + thick / 2, y + thick / 2, cell - thick, cell - thick);
    }
  }

  /** The border of what the chosen token stands for, and a frame around its own place. */
  #edge(rows, columns, cell) {
    const { context, found, chosen } = this;
    const inside = (row, column) =>
      row >= 0 && column >= 0 && row < rows && column < columns && found.owner[row * columns + column] === chosen;
    const path = new Path2D();
    found.owner.forEach((own, at) => {
      if (own !== chosen) return;
      const [row, column] = [Math.floor(at / columns), at % columns];
      const [x, y] = [column * cell, row * cell];
      const side = (open, ...points) => {
        if (open) return;
        path.moveTo(points[0], points[1]);
        path.lineTo(points[2], points[3]);
      };
      side(inside(row - 1, column), x, y, x + cell, y);
      side(inside(row + 1, column), x, y + cell, x + cell, y + cell);
      side(inside(row, column - 1), x, y, x, y + cell);
      side(inside(row, column + 1), x + cell, y, x + cell, y + cell);
    });
    const at = found.kept[chosen];
    path.rect((at % columns) * cell, Math.floor(at / columns) * cell, cell, cell);
    const accent = getComputedStyle(this.canvas).getPropertyValue("--accent").trim();
    const scale = this.canvas.width / (this.canvas.clientWidth || this.canvas.width);
    context.lineCap = "square";
    for (const [style, width] of [["white", 4], [accent, 2]]) {
      context.strokeStyle = style;
      context.lineWidth = width * scale;
      context.stroke(path);
    }
  }

  #point(event) {
    if (!this.found) return;
    const [rows, columns] = this.found.grid;
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    if (row < 0 || column < 0 || row >= rows || column >= columns) return;
    const at = row * columns + column;
    const standing = this.found.kept.indexOf(at);
    this.choose(standing >= 0 && this.found.owner[at] < 0 ? standing : this.found.owner[at]);
  }

  #press(event) {
    if (!this.found) return;
    const count = this.found.kept.length;
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    let next;
    if (event.key in steps) next = this.chosen < 0 ? 0 : this.#beside(...steps[event.key]);
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = count - 1;
    else if (event.key === "Escape") next = -1;
    else return;
    event.preventDefault();
    this.choose(next);
  }

  /** The nearest token in a direction; the same one where there is none. */
  #beside(down, right) {
    const { kept, grid } = this.found;
    const place = (token) => [Math.floor(kept[token] / grid[1]), kept[token] % grid[1]];
    const [row, column] = place(this.chosen);
    let best = this.chosen;
    let least = Infinity;
    kept.forEach((_, token) => {
      const [y, x] = place(token);
      const [ahead, aside] = down ? [(y - row) * down, x - column] : [(x - column) * right, y - row];
      const far = ahead + 2 * Math.abs(aside);
      if (ahead > 0 && far < least) [best, least] = [token, far];
    });
    return best;
  }
}

/** The picture around its centre in the canvas's shape: what the model is shown. */
function crop(context, image) {
  const { width, height } = context.canvas;
  const scale = Math.min(image.naturalWidth / width, image.naturalHeight / height);
  const [wide, high] = [width * scale, height * scale];
  const [x, y] = [(image.naturalWidth - wide) / 2, (image.naturalHeight - high) / 2];
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, x, y, wide, high, 0, 0, width, height);
}
