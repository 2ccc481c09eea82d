// Two answers side by side, as they come.

import { events } from "./api.js";

export const ms = (value) => (value === undefined ? "" : `${value.toFixed(value < 10 ? 1 : 0)} ms`);
const stage = (value) => (value === 0 ? "cached" : ms(value));

/** One answer's place on the page. */
export class Answer {
  constructor(title) {
    this.node = make("article", "answer");
    this.said = make("p", "said");
    this.said.setAttribute("aria-live", "polite");
    this.facts = make("dl", "facts");
    this.node.append(make("h3", "", title), this.said, this.facts);
    this.wait("…");
  }

  /** Say that nothing came yet. */
  wait(text) {
    this.said.textContent = text;
    this.node.dataset.state = "waits";
  }

  /** Ask, and show what comes; returns {text, first, visual}. Raises Refused. */
  async stream(body, signal) {
    const since = performance.now();
    let [text, first, usage] = ["", undefined, null];
    for await (const event of events("v1/chat/completions", body, signal)) {
      first ??= performance.now() - since;
      text += event.choices[0]?.delta?.content ?? "";
      usage = event.usage ?? usage;
      this.said.textContent = text || "…";
      this.node.dataset.state = "streams";
    }
    const whole = performance.now() - since;
    const seen = usage?.prompt_tokens_details ?? {};
    this.said.textContent = text || "(nothing)";
    this.node.dataset.state = "done";
    this.#tell([
      ["Visual tokens", seen.visual_tokens_kept],
      ["Prompt tokens", usage?.prompt_tokens],
      ["Answer tokens", usage?.completion_tokens],
      ["Encode", stage(seen.encode_ms)],
      ["Reduce", stage(seen.reduce_ms)],
      ["First token", ms(first)],
      ["Whole answer", ms(whole)],
    ]);
    return { text, first, whole };
  }

  fail(sentence) {
    this.said.textContent = sentence;
    this.node.dataset.state = "failed";
  }

  #tell(rows) {
    this.facts.replaceChildren(
      ...rows.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", String(value ?? ""))]),
    );
  }
}

/** What both say, in a sentence. */
export function verdict(few, all, right) {
  const same = few.text === all.text ? "The same answer" : "Another answer";
  const times = all.first / few.first;
  const sooner = times > 1.05 ? `, ${times.toFixed(1)} times sooner` : "";
  return `${same}${sooner}.${right ? ` The right one: ${right}.` : ""}`;
}

export function make(tag, name = "", text = "") {
  const node = document.createElement(tag);
  node.className = name;
  node.textContent = text;
  return node;
}
