// What is chosen, and what follows from it.

import { Answer, make, ms, verdict } from "./answers.js";
import { get, key, post } from "./api.js";
import { nearest, stops } from "./budget.js";
import { brief, line } from "./curl.js";
import { fromFile, fromSample } from "./picture.js";
import { Tokens } from "./tokens.js";

const at = (id) => document.getElementById(id);
const state = { model: "", methods: [], method: null, picture: null, right: {}, keep: null, stops: stops(576) };
const tokens = new Tokens(at("canvas"), (token) => {
  at("token").textContent = token < 0 ? "" : tokens.words(token);
});

// -- requests ------------------------------------------------------------------------------------------------

function body(method = state.method.reducer, keep = state.keep) {
  const shown = { type: "image_url", image_url: { url: state.picture.url } };
  const text = { type: "text", text: at("question").value.trim() };
  const messages = [{ role: "user", content: [shown, text] }];
  return { model: state.model, messages, reducer: method, ...(keep === null ? {} : { keep }) };
}

let looking = null; // the controller of the look under way
let again = false; // whether something was chosen meanwhile

/** Ask what is kept. Of choices that come faster than replies the last one counts; where `anew` is said, the
 * look under way is of no use to anyone. */
async function look(anew = false) {
  if (!state.picture || !state.method) return;
  tellCurl();
  if (!state.method.draws) return undrawn("This method drops tokens while the model answers: ask to see what it says.");
  if (looking && !anew) {
    again = true;
    return;
  }
  looking?.abort();
  const own = (looking = new AbortController());
  again = false;
  const slow = setTimeout(() => own === looking && (at("took").textContent = "looking …"), 300);
  try {
    const found = await post("page/select", body(), own.signal);
    if (own === looking) drawn(found);
  } catch (error) {
    if (own === looking) failed(error);
  } finally {
    clearTimeout(slow);
  }
  if (own !== looking) return;
  looking = null;
  if (again) await look();
}

function drawn(found) {
  say("");
  const { visual_tokens: all, visual_tokens_kept: left } = found;
  tokens.show(state.picture.image, found);
  at("counts").hidden = false;
  at("count").textContent = left;
  at("of").textContent = `of ${all} visual tokens, ${((100 * left) / all).toFixed(1)} %`;
  at("bar").style.width = `${(100 * left) / all}%`;
  at("took").textContent = [took(found), state.picture.note].filter(Boolean).join(", ");
  at("canvas").setAttribute("aria-label", `The picture, with ${left} of ${all} visual tokens kept`);
  if (state.stops.at(-1) !== all) state.stops = stops(all);
  at("budget").max = state.stops.length - 1;
  at("most").textContent = all;
  if (state.keep === null) at("budget").value = nearest(state.stops, left);
  tellBudget();
}

const took = ({ remembered, encode_ms: encode, reduce_ms: reduce }) =>
  `${remembered ? "encoded before" : `encoded in ${ms(encode)}`}, reduced in ${ms(reduce)}`;

/** The picture alone, and why. */
function undrawn(why) {
  looking?.abort();
  looking = null;
  tokens.show(state.picture.image, null);
  at("counts").hidden = true;
  at("took").textContent = why;
  at("canvas").setAttribute("aria-label", "The picture");
}

function failed(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) at("unlock").hidden = false;
  if (error.code === "not_drawable") undrawn(error.message);
  else say(error.message);
}

function say(sentence) {
  at("error").textContent = sentence;
  at("error").hidden = !sentence;
}

let asking = null; // the controller of the question under way

async function ask() {
  asking?.abort();
  if (!state.picture || !state.method) return;
  const own = (asking = new AbortController());
  const more = { stream: true, stream_options: { include_usage: true }, max_tokens: 128 };
  const plain = state.method.reducer === "none";
  const all = [new Answer("every token"), { ...body("none", null), ...more }];
  const few = [new Answer(state.method.reducer), { ...body(), ...more }];
  const both = plain ? [all] : [few, all];
  at("answers").replaceChildren(...both.map(([answer]) => answer.node));
  at("answers").hidden = false;
  at("verdict").textContent = "";
  at("send").textContent = "Stop";
  if (!plain) all[0].wait("comes next");
  const said = [];
  try {
    // One after the other: together they would wait for each other, and no time would be their own.
    for (const [answer, request] of both) {
      try {
        said.push(await answer.stream(request, own.signal));
      } catch (error) {
        answer.fail(error.name === "AbortError" ? "stopped" : error.message);
        if (error.status === 401) at("unlock").hidden = false;
        if (own.signal.aborted) break;
      }
    }
    if (said.length === 2 && own === asking) {
      at("verdict").textContent = verdict(...said, state.right[at("question").value.trim()]);
    }
  } finally {
    if (own === asking) {
      asking = null;
      at("send").textContent = "Ask";
    }
  }
}

// -- what is chosen ------------------------------------------------------------------------------------------

async function take(opening, questions = []) {
  try {
    state.picture = await opening;
  } catch (error) {
    say(error.message);
    return;
  }
  say("");
  asking?.abort();
  at("answers").hidden = true;
  at("verdict").textContent = "";
  tokens.show(state.picture.image, null);
  state.right = Object.fromEntries(questions.map(({ text, answer }) => [text, answer]));
  at("questions").replaceChildren(...questions.map(({ text }) => chip(text)));
  if (questions.length) at("question").value = questions[0].text;
  for (const node of at("samples").children) node.setAttribute("aria-pressed", node.title === state.picture.name);
  await look(true);
}

function chip(text) {
  const node = make("button", "", text);
  node.type = "button";
  node.addEventListener("click", () => {
    at("question").value = text;
    asked();
    ask();
  });
  return node;
}

/** The question is another one. */
function asked() {
  if (state.method?.reads) look(true);
  else if (state.picture && state.method) tellCurl();
}

function choose(method) {
  state.method = method;
  state.keep = method.keep;
  at("own").checked = state.keep === null;
  at("summary").textContent = method.summary;
  at("budgets").hidden = !method.budget;
  at("owns").textContent = method.adaptive ? "as many as the picture needs" : "as it is by itself";
  look(true);
}

function tellBudget() {
  const count = state.stops[at("budget").value];
  at("budget").setAttribute("aria-valuetext", state.keep === null ? "its own choice" : `${count} tokens`);
}

function tellCurl() {
  const text = line(location.origin, body(), Boolean(key.get()));
  at("curl").textContent = brief(text);
  at("copied").textContent = "";
}

async function copy() {
  if (!state.picture) return;
  const text = line(location.origin, body(), Boolean(key.get()));
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", "hidden"); // pages of plain http have no clipboard
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  at("copied").textContent = `Copied, with the whole picture: ${Math.ceil(text.length / 1000)} kB`;
}

// -- what is pressed, typed and dropped ----------------------------------------------------------------------

at("method").addEventListener("change", () => choose(state.methods[at("method").selectedIndex]));
at("budget").addEventListener("input", () => {
  state.keep = state.stops[at("budget").value];
  at("own").checked = false;
  tellBudget();
  look();
});
at("own").addEventListener("change", () => {
  state.keep = at("own").checked ? null : state.stops[at("budget").value];
  look();
});
at("file").addEventListener("change", () => {
  if (at("file").files[0]) take(fromFile(at("file").files[0]));
  at("file").value = "";
});
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (asking) asking.abort();
  else ask();
});
let typing;
at("question").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(asked, 250);
});
at("copy").addEventListener("click", copy);
for (const input of document.getElementsByName("view")) {
  input.addEventListener("change", () => tokens.look(input.value));
}
at("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(at("key").value.trim());
  at("unlock").hidden = true;
  start();
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("stage").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("stage").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  at("stage").classList.remove("over");
  if (event.dataTransfer.files[0]) take(fromFile(event.dataTransfer.files[0]));
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files[0]) take(fromFile(event.clipboardData.files[0]));
});

async function start() {
  try {
    const [{ model, methods }, samples] = await Promise.all([get("page/methods"), get("page/samples")]);
    say("");
    Object.assign(state, { model, methods });
    at("model").textContent = model;
    at("model").hidden = false;
    at("method").replaceChildren(...methods.map(({ reducer }) => make("option", "", reducer)));
    at("samples").replaceChildren(...samples.map(thumbnail));
    choose(methods[0]);
    if (!state.picture) await take(fromSample(samples[0]), samples[0].questions);
  } catch (error) {
    failed(error);
  }
}

function thumbnail(sample, number) {
  const node = make("button");
  const image = make("img");
  Object.assign(image, { src: sample.url, alt: `Sample ${number + 1}` });
  Object.assign(node, { type: "button", title: sample.name });
  node.append(image);
  node.addEventListener("click", () => take(fromSample(sample), sample.questions));
  return node;
}

start();
