// The page at the server's root: one input, two models, two answers beside each other while they are written.
// What the server sends is put in as text, never as HTML. The key stays in sessionStorage.

const KEY = "rung-api-key";
const NO_MODEL = "";
const MOST_INPUTS = 20;
const KINDS = { bundle: "Bundles", adapter: "Adapters", base: "Base models" };

const byId = (id) => document.getElementById(id);
const form = byId("form"), input = byId("input"), context = byId("context"), key = byId("key");
const send = byId("send"), stop = byId("stop"), answers = byId("answers");
const selects = [byId("left"), byId("right")];

let models = [];
let asking = null; // the AbortController of the answers that are being written
const inputs = []; // of this visit, the last one first

// ---- what the server is asked --------------------------------------------------------------

class Failure extends Error {
  constructor(message, status = 0) {
    super(message.charAt(0).toUpperCase() + message.slice(1));
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key.value.trim()) headers.Authorization = `Bearer ${key.value.trim()}`;
  let reply;
  try {
    reply = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof TypeError && key.value.trim() && /[^\x20-\x7e]/.test(key.value.trim()))
      throw new Failure("The API key holds a character that no key has. Type it again.", 401);
    throw new Failure("The server could not be reached. See whether it is still running.");
  }
  if (reply.ok) return reply;
  const body = await reply.json().catch(() => null);
  throw new Failure(told(reply, body?.error?.message), reply.status);
}

function told(reply, message) {
  if (reply.status === 401)
    return key.value.trim()
      ? "The server does not know this API key. Type it again."
      : "The server asks for an API key. Type it under “API key”.";
  const again = reply.headers.get("Retry-After");
  const said = message || `The server answered with status ${reply.status}.`;
  return again ? `${said.replace(" Try again later.", "")} Try again in ${again} s.` : said;
}

async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const data = line.startsWith("data:") ? line.slice(5).trim() : "";
        if (data === "[DONE]") return;
        if (data) yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// ---- models ---------------------------------------------------------------------------------

const kindOf = (model) => model.rung.kind;

async function listModels() {
  try {
    models = (await (await ask("v1/models")).json()).data ?? [];
  } catch (failure) {
    showProblem(failure);
    return;
  }
  if (!byId("problem").hidden) byId("key-box").open = false;
  showProblem(null);
  const answering = models.filter((model) => kindOf(model) !== "base");
  const first = answering[0] ?? models[0];
  const second = answering[1] ?? models.find((model) => model !== first);
  fill(selects[0], first?.id, false);
  fill(selects[1], second?.id ?? NO_MODEL, true);
  byId("status").textContent = models.length ? "" : "The server has no model.";
  showContext();
}

const takesContext = (name) => models.find((model) => model.id === name)?.rung?.context ?? true;

function showContext() {
  const chosen = selects.map((select) => select.value).filter((name) => name !== NO_MODEL);
  byId("context-box").hidden = !chosen.some(takesContext);
}

function fill(select, proposed, mayBeNone) {
  const before = select.value;
  const groups = Object.entries(KINDS).map(([kind, title]) => {
    const group = document.createElement("optgroup");
    group.label = title;
    group.append(...models.filter((model) => kindOf(model) === kind).map((model) => new Option(model.id, model.id)));
    return group;
  });
  const none = mayBeNone ? [new Option("none, one answer only", NO_MODEL)] : [];
  select.replaceChildren(...groups.filter((group) => group.children.length), ...none);
  const stays = select.dataset.chosen && [...select.options].some((option) => option.value === before);
  select.value = stays ? before : proposed ?? NO_MODEL;
}

// ---- answers --------------------------------------------------------------------------------

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(2)} s`;
const count = (number) => (typeof number === "number" ? number.toLocaleString("en") : "–");

function card(name) {
  const article = byId("answer").content.cloneNode(true).firstElementChild;
  const part = (selector) => article.querySelector(selector);
  const model = models.find((one) => one.id === name);
  part("h2").textContent = name;
  part("h2").id = `answer-${answers.children.length}`;
  article.setAttribute("aria-labelledby", part("h2").id);
  part(".kind").textContent = model?.parent ? `${kindOf(model)} over ${model.parent}` : "base model, as it is";
  answers.append(article);
  return {
    figure: (which, value) => (part(`[data-figure="${which}"]`).textContent = value),
    add: (text) => part(".text").append(text),
    settle: () => part(".text").setAttribute("aria-busy", "false"),
    fail: (message) => {
      part(".problem").textContent = message;
      part(".problem").hidden = false;
      if (!part(".text").hasChildNodes()) part(".text").hidden = true;
    },
    mark: (said) => {
      part(".marks").append(item(said));
      part(".marks").hidden = false;
    },
    sources: (passages) => {
      part(".sources").hidden = !passages.length;
      part(".sources ol").replaceChildren(...passages.map(source));
    },
  };
}

function item(text) {
  const li = document.createElement("li");
  li.textContent = text;
  return li;
}

function source(passage) {
  const li = document.createElement("li"), box = document.createElement("details");
  const title = document.createElement("summary"), text = document.createElement("p");
  const pages = passage.last_page ? `, pages ${passage.page}–${passage.last_page}` : passage.page ? `, page ${passage.page}` : "";
  const name = passage.title || passage.id, place = passage.source || passage.id;
  title.textContent = `[${passage.number}] ${name}${pages}${place === name ? "" : ` (${place})`}`;
  if (passage.cited) {
    title.classList.add("cited");
    title.append(tag("cited"));
  }
  if (passage.supports === false) title.append(tag("does not contain this answer", "doubt"));
  text.className = "passage";
  text.textContent = passage.text;
  box.append(title, text);
  li.append(box);
  return li;
}

function tag(text, ...classes) {
  const span = document.createElement("span");
  span.className = ["tag", ...classes].join(" ");
  span.textContent = text;
  return span;
}

async function answer(name, signal) {
  const shown = card(name), since = performance.now();
  const given = context.value.trim() !== "", used = given && takesContext(name);
  if (given && !used && !byId("context-box").hidden) shown.mark("Asked without the context: this model takes none.");
  const body = {
    model: name,
    messages: [{ role: "user", content: input.value }],
    stream: true,
    stream_options: { include_usage: true },
    ...(used ? { rung: { context: context.value } } : {}),
  };
  let begun = false, finish = null, outcome = "answered";
  try {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
    for await (const chunk of events(await ask("v1/chat/completions", options))) {
      if (chunk.error) throw new Failure(chunk.error.message);
      const choice = chunk.choices?.[0], text = choice?.delta?.content;
      if (text) {
        if (!begun) shown.figure("first", seconds(since));
        begun = true;
        shown.add(text);
      }
      finish = choice?.finish_reason ?? finish;
      if (chunk.usage) showUsage(shown, chunk.usage);
      if (chunk.rung) showMore(shown, chunk.rung);
    }
    if (finish === null) throw new Failure("The connection ended before the answer did.");
    if (finish === "length") shown.mark("The answer was cut: it used up all the tokens that it may have.");
  } catch (error) {
    if (error.name === "AbortError") shown.mark("Stopped.");
    else shown.fail(error instanceof Failure ? error.message : "The connection broke off.");
    if (error.status === 401 || error.status === 403) showProblem(error);
    if (error.status === 404) listModels();
    outcome = error.name === "AbortError" ? "stopped" : "failed";
  }
  shown.figure("total", seconds(since));
  shown.settle();
  return outcome;
}

function showUsage(shown, usage) {
  shown.figure("in", count(usage.prompt_tokens));
  shown.figure("cached", count(usage.prompt_tokens_details?.cached_tokens ?? 0));
  shown.figure("out", count(usage.completion_tokens));
}

function showMore(shown, more) {
  if (more.refused) shown.mark("It says that there is no answer.");
  if (more.fault) shown.mark(`Fault: ${more.fault}`);
  shown.sources(more.sources);
}

// ---- the form -------------------------------------------------------------------------------

async function submit() {
  const names = [...new Set(selects.map((select) => select.value))].filter((name) => name !== NO_MODEL);
  if (asking || !names.length || !input.value.trim()) return;
  const controller = (asking = new AbortController());
  showProblem(null);
  remember();
  answers.replaceChildren();
  send.disabled = true;
  stop.disabled = false;
  byId("status").textContent = `Asking ${names.join(" and ")} …`;
  const outcomes = await Promise.all(names.map((name) => answer(name, controller.signal)));
  asking = null;
  send.disabled = false;
  if (document.activeElement === stop) send.focus();
  stop.disabled = true;
  byId("status").textContent = names.map((name, at) => `${name} ${outcomes[at]}`).join(", ") + ".";
}

function remember() {
  const asked = { input: input.value, context: context.value };
  const same = inputs.findIndex((one) => one.input === asked.input && one.context === asked.context);
  if (same >= 0) inputs.splice(same, 1);
  inputs.unshift(asked);
  inputs.length = Math.min(inputs.length, MOST_INPUTS);
  byId("history").hidden = false;
  byId("inputs").replaceChildren(...inputs.map(earlier));
}

function earlier(asked) {
  const li = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.textContent = asked.input.trim().slice(0, 200) + (asked.context.trim() ? " (with context)" : "");
  button.addEventListener("click", () => {
    input.value = asked.input;
    context.value = asked.context;
    byId("context-box").open = Boolean(asked.context);
    input.focus();
  });
  li.append(button);
  return li;
}

function showProblem(failure) {
  byId("problem").textContent = failure?.message ?? "";
  byId("problem").hidden = !failure;
  if (failure?.status === 401 || failure?.status === 403) {
    byId("key-box").open = true;
    if (!input.value) key.focus(); // else somebody is typing
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
document.addEventListener("keydown", (event) => event.key === "Escape" && asking?.abort());
stop.addEventListener("click", () => asking?.abort());
for (const select of selects)
  select.addEventListener("change", () => {
    select.dataset.chosen = "yes";
    showContext();
  });
key.addEventListener("change", () => {
  sessionStorage.setItem(KEY, key.value.trim());
  listModels();
});
document.addEventListener("visibilitychange", () => document.hidden || asking || listModels()); // adapters come and go

key.value = sessionStorage.getItem(KEY) ?? "";
listModels();
