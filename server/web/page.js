// The web page of vireid: one plain module without a build step. It sends requests only to its own server, by relative
// addresses, so that it also works behind a path prefix.

const $ = (selector, root = document) => root.querySelector(selector);
const KEY = "vireid-key";
const state = { limits: null, galleries: [], crops: [] };

// ---- requests -------------------------------------------------------------------------------------

class Problem extends Error {
  constructor(body, status, retryAfter) {
    super(body.detail ?? body.title ?? `The server answered ${status}.`);
    Object.assign(this, { body, status, retryAfter });
  }
}

async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Problem({ title: "No connection", detail: "The server cannot be reached." }, 0);
  }
  if (answer.ok) return answer;
  if (answer.status === 401) askForKey();
  const body = await answer.json().catch(() => ({}));
  throw new Problem(body, answer.status, Number(answer.headers.get("Retry-After")) || 1);
}

const get = async (path) => (await call(path)).json();

const send = async (path, body, method = "POST") => {
  const isForm = body instanceof FormData;
  const headers = isForm ? {} : { "Content-Type": "application/json" };
  return (await call(path, { method, headers, body: isForm ? body : JSON.stringify(body) })).json();
};

async function pages(path, name) {
  const found = [];
  for (let cursor = ""; cursor !== null;) {
    const page = await get(`${path}?limit=1000${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
    found.push(...page[name]);
    cursor = page.next_cursor;
  }
  return found;
}

const galleryPath = (name) => `v1/galleries/${encodeURIComponent(name)}`;

// ---- messages ----------------------------------------------------------------------------------------

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function show(error) {
  if (error.status === 401) return;
  const box = $("#alert");
  const faults = (error.body?.errors ?? []).slice(0, 8);
  box.replaceChildren(element("strong", { textContent: error.body?.title ?? "Unexpected error" }));
  if (faults.length) {
    box.append(element("ul", {}, ...faults.map(({ field, detail }) =>
      element("li", {}, element("code", { textContent: nameOf(field) }), ` ${detail}`))));
  } else {
    box.append(` – ${error.message}`);
  }
  box.hidden = false;
  box.scrollIntoView({ block: "nearest" });
}

// Returns the file name in place of the index in the form.
function nameOf(field) {
  const index = /^images\[(\d+)\]$/.exec(field)?.[1];
  return state.crops[index]?.file.name ?? field;
}

const settled = () => { $("#alert").hidden = true; };

const attempt = (action) => async (event) => {
  event?.preventDefault?.();
  settled();
  document.body.classList.add("busy");
  try {
    await action(event);
  } catch (error) {
    if (!(error instanceof Problem)) console.error(error);
    show(error);
  } finally {
    document.body.classList.remove("busy");
  }
};

const plural = (count, one, many = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : many}`;

function rateInWords({ false_match_rate: rate, below, expected_false_hits: expected }, drawn) {
  if (rate === null) return drawn ? "A drawing: no error rate is known" : "Not calibrated for this kind of data";
  const others = expected < 10 ? Number(expected.toPrecision(2)) : Math.round(expected);
  const among = `${below ? "fewer than " : ""}${others.toLocaleString()} false ${others === 1 ? "hit" : "hits"} expected`;
  if (rate > 0.4) return `${Math.round(rate * 100)} % of strangers score as high; ${among}`;
  const people = 1 / rate;
  const rounded = people < 20 ? Math.round(people) : Number(people.toPrecision(2));
  return `${below ? "Fewer than 1" : "1"} in ${rounded.toLocaleString()} strangers scores as high; ${among}`;
}

function calibrationInWords(used) {
  const people = used.identities === null ? "" : ` of ${plural(used.identities, "person", "people")}`;
  const origin = used.real ? "real crops" : "not real infrared crops";
  const by = used.source === "gallery" ? "this gallery's own items" : used.data;
  return `Error rates ${used.query} to ${used.gallery} were measured on ${by}: `
    + `${plural(used.impostor_pairs, "pair")} of different people${people}, ${origin}.`;
}

const WARNINGS = {
  too_small: ["small", "Few pixels: it is enlarged to more than twice its size for the model."],
  too_dark: ["dark", "The image is too dark."],
  blurred: ["blurred", "The image has no fine detail."],
  not_person_shaped: ["odd shape", "The aspect ratio is unusual for a standing person."],
};

const badges = (warnings) => warnings.map((warning) => {
  const [text, title] = WARNINGS[warning] ?? [warning, ""];
  return element("li", { className: "warning", textContent: text, title });
});

// ---- API key, status, tabs ---------------------------------------------------------------------------------------

function askForKey() {
  if (!$("#access").hidden) return;
  const known = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  $("#access").hidden = false;
  $("#access small").textContent = known ? "The server rejected this key." : "Kept in this tab only.";
  $("#key").focus();
}

$("#access").addEventListener("submit", attempt(async () => {
  sessionStorage.setItem(KEY, $("#key").value.trim());
  $("#key").value = "";
  $("#access").hidden = true;
  await load();
}));

async function load() {
  const [limits, models] = await Promise.all([get("v1/limits"), get("v1/models")]);
  state.limits = limits;
  $("#new-model").replaceChildren(...models.models.map((card) =>
    element("option", { value: card.name, textContent: card.name, selected: card.name === models.default })));
  await loadGalleries();
}

async function watchService() {
  const box = $("#service");
  try {
    const answer = await fetch("readyz");
    const body = await answer.json();
    const status = body.facts ?? body;
    const models = status.models ?? [];
    box.className = answer.ok ? "ready" : "trouble";
    $(".text", box).textContent = answer.ok
      ? `ready · ${plural(models.length, "model")} on ${models[0].provider.replace("ExecutionProvider", "")}`
      : body.detail;
  } catch {
    box.className = "trouble";
    $(".text", box).textContent = "no connection";
  }
  setTimeout(watchService, 15_000);
}

const tabs = [...document.querySelectorAll("[role=tab]")];

function openTab(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    $(`#${other.getAttribute("aria-controls")}`).hidden = !chosen;
  }
  settled();
}

for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => openTab(tab));
  tab.addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    const next = tabs[(index + step + tabs.length) % tabs.length];
    openTab(next);
    next.focus();
  });
}

// ---- galleries -------------------------------------------------------------------------------------------------

async function loadGalleries(choose) {
  state.galleries = await pages("v1/galleries", "galleries");
  for (const select of [$("#gallery"), $("#add-gallery")]) {
    const kept = choose ?? select.value;
    select.replaceChildren(...state.galleries.map(({ name }) => element("option", { value: name, textContent: name })));
    if (state.galleries.some(({ name }) => name === kept)) select.value = kept;
  }
  $("#gallery-list").replaceChildren(...state.galleries.map((gallery) => element("li", {},
    element("b", { textContent: gallery.name }),
    element("span", { className: "details-line", textContent: `${plural(gallery.items, "crop")} · ${gallery.model}` }))));
  if (!state.galleries.length) {
    $("#gallery-list").append(element("li", { className: "none", textContent: "None yet. Create one, then add crops to it." }));
  }
  readyToSearch();
}

$("#create").addEventListener("submit", attempt(async () => {
  const name = $("#new-name").value;
  await send("v1/galleries", { name, model: $("#new-model").value });
  $("#new-name").value = "";
  await loadGalleries(name);
}));

// The id depends only on the file name, so that adding a file again replaces it.
function idOf(file) {
  const name = (file.webkitRelativePath || file.name).replace(/\.[^.]*$/, "");
  return name.normalize("NFKD").replace(/[^A-Za-z0-9._:-]+/g, "-").slice(-128) || "crop";
}

function* batches(files) {
  let batch = [], bytes = 0;
  for (const file of files) {
    if (batch.length && (batch.length >= Math.min(16, state.limits.max_images) || bytes + file.size > state.limits.max_body_bytes / 2)) {
      yield batch;
      batch = [], bytes = 0;
    }
    batch.push(file);
    bytes += file.size;
  }
  if (batch.length) yield batch;
}

async function addBatch(gallery, files, fields) {
  const form = new FormData();
  for (const file of files) form.append("images", file);
  form.append("items", JSON.stringify(files.map((file) => ({ id: idOf(file), ...fields }))));
  for (;;) {
    try {
      return await send(`${galleryPath(gallery)}/items`, form);
    } catch (error) {
      if (error.status === 429) {
        await new Promise((resume) => setTimeout(resume, 1000 * error.retryAfter));
      } else if ([413, 415, 422].includes(error.status)) {
        return { added: 0, updated: 0, items: files.map((_, index) => ({ index, status: "failed", error: error.body })) };
      } else {
        throw error;
      }
    }
  }
}

const addFiles = attempt(async (files) => {
  const gallery = $("#add-gallery").value;
  if (!gallery) throw new Problem({ title: "No gallery", detail: "Create a gallery first, on the left." }, 0);
  const fields = { modality: $("[name=add-modality]:checked").value };
  if ($("#add-camera").value) fields.camera = $("#add-camera").value;
  const unique = [...new Map([...files].map((file) => [idOf(file), file])).values()];
  const progress = $("#add-progress"), failures = $("#add-failures"), warned = $("#add-warnings");
  $("#add-state").hidden = false;
  failures.replaceChildren();
  warned.replaceChildren();
  progress.max = unique.length;
  progress.value = 0;
  const count = { added: 0, updated: 0, failed: 0, warned: 0 };
  const text = () => [`${progress.value.toLocaleString()} of ${plural(unique.length, "crop")}`, `${count.added} added`,
    count.updated && `${count.updated} replaced`, count.failed && `${count.failed} failed`,
    count.warned && `${count.warned} of poor quality`].filter(Boolean).join(" · ");
  $("#add-text").textContent = text();
  for (const batch of batches(unique)) {
    const result = await addBatch(gallery, batch, fields);
    count.added += result.added;
    count.updated += result.updated;
    for (const item of result.items.filter(({ status }) => status === "failed")) {
      count.failed += 1;
      failures.append(element("li", { textContent: `${batch[item.index].name}: ${item.error.detail}` }));
    }
    for (const item of result.items.filter(({ warnings }) => warnings?.length)) {
      count.warned += 1;
      warned.append(element("li", {}, batch[item.index].name, element("ul", { className: "warnings" }, ...badges(item.warnings))));
    }
    progress.value += batch.length;
    $("#add-text").textContent = text();
  }
  await loadGalleries();
});

// ---- drop areas --------------------------------------------------------------------------------------------

function acceptFiles(drop, take) {
  const input = $("input", drop);
  const files = (list) => [...list].filter((file) => file.size || file.type);
  input.addEventListener("change", () => {
    take(files(input.files));
    input.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    take(files(event.dataTransfer.files));
  });
}

for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

acceptFiles($("#add-drop"), addFiles);
acceptFiles($("#query-drop"), (files) => {
  state.crops.push(...files.map((file) => ({ file, url: URL.createObjectURL(file) })));
  showCrops();
});

function showCrops() {
  $("#query-crops").replaceChildren(...state.crops.map((crop) => {
    const remove = element("button", { type: "button", textContent: "×", ariaLabel: `Remove ${crop.file.name}` });
    remove.addEventListener("click", () => {
      state.crops = state.crops.filter((other) => other !== crop);
      showCrops();
    });
    const image = element("img", { src: crop.url, alt: crop.file.name });
    const entry = element("li", {}, image, remove);
    image.addEventListener("error", () => entry.classList.add("broken"));
    return entry;
  }));
  readyToSearch();
}

// ---- search -------------------------------------------------------------------------------------------------

function readyToSearch() {
  $("#go").disabled = !state.crops.length || !state.galleries.length;
}

function query() {
  const cameras = $("#cameras").value.split(",").map((name) => name.trim()).filter(Boolean);
  const time = (selector) => ($(selector).value ? new Date($(selector).value).toISOString() : null);
  return {
    k: Number($("#k").value),
    fusion: $("#fusion").value,
    group_by: $("#group").checked ? "identity" : null,
    filter: {
      modality: $("[name=target]:checked").value || null,
      cameras: cameras.length ? cameras : null,
      captured_from: time("#captured-from"),
      captured_to: time("#captured-to"),
    },
  };
}

$("#search").addEventListener("submit", attempt(async () => {
  const form = new FormData();
  for (const { file } of state.crops) form.append("images", file);
  form.append("modality", $("[name=modality]:checked").value);
  form.append("query", JSON.stringify(query()));
  const gallery = $("#gallery").value;
  const answer = await send(`${galleryPath(gallery)}/search`, form);
  const images = state.crops.map(({ file }) => element("img", { src: URL.createObjectURL(file), alt: "Query" }));
  showAnswer(answer, images, answer.warnings);
}));

const searchLike = (gallery, item) => attempt(async () => {
  const answer = await send(`${galleryPath(gallery)}/search`, { query: query(), item_id: item.id });
  const image = element("img", { alt: `Query ${item.id}` });
  loadThumbnail(image, gallery, item.id);
  showAnswer(answer, [image], [item.warnings]);
  scrollTo({ top: 0 });
});

function showAnswer(answer, images, warnings) {
  const modality = [...new Set(answer.modality)].join(" and ");
  const text = element("div", {},
    element("h2", { textContent: answer.hits.length ? plural(answer.hits.length, "hit") : "No hits" }),
    element("p", { textContent: answer.searched
      ? `${modality} query against ${plural(answer.searched, "crop")} of ${answer.gallery}, in ${answer.timing_ms.total.toFixed(0)} ms`
      : `No crop of ${answer.gallery} matches the filters. Choose “All” under “Search among” to widen the search.` }));
  const shown = [element("div", { className: "summary" },
    element("ul", { className: "crops" }, ...images.map((image) => element("li", {}, image))), text)];
  const warningNames = [...new Set(warnings.flat())];
  if (warningNames.length) text.append(element("ul", { className: "warnings", ariaLabel: "Query" }, ...badges(warningNames)));
  text.append(...Object.values(answer.calibrations).map((used) => element("p", { textContent: calibrationInWords(used) })));
  if (answer.groups) {
    for (const { identity, score, hits } of mergeUnlabelled(answer.groups)) {
      shown.push(element("h3", { className: "group" }, identity ?? "No identity",
        element("small", { textContent: `${plural(hits.length, "crop")}, best ${score.toFixed(3)}` })));
      shown.push(hitList(answer.gallery, hits));
    }
  } else {
    shown.push(hitList(answer.gallery, answer.hits));
  }
  const results = $("#results");
  results.replaceChildren(...shown);
  if (results.getBoundingClientRect().top > innerHeight / 2) results.scrollIntoView({ behavior: "smooth" });
}

// Merges adjacent groups without identity under one heading.
function mergeUnlabelled(groups) {
  const merged = [];
  for (const group of groups) {
    const last = merged.at(-1);
    if (group.identity === null && last?.identity === null) {
      last.hits.push(...group.hits.map((hit) => ({ ...hit, rank: last.hits.length + 1 })));
    } else {
      merged.push({ ...group, hits: [...group.hits] });
    }
  }
  return merged;
}

const hitList = (gallery, hits) => element("ol", { className: "hits" }, ...hits.map((hit) => hitCard(gallery, hit)));

function hitCard(gallery, hit) {
  const { rank, score, item } = hit;
  const card = $("#hit").content.firstElementChild.cloneNode(true);
  const image = $("img", card);
  image.alt = `Hit ${rank}: ${item.id}`;
  whenSeen(image, () => loadThumbnail(image, gallery, item.id));
  $(".rank", card).textContent = rank;
  $(".modality", card).textContent = item.modality;
  $(".modality", card).classList.add(item.modality);
  $(".warnings", card).append(...badges(item.warnings));
  $(".who", card).textContent = item.identity ?? item.id;
  $(".who", card).title = item.id;
  $(".bar", card).style.setProperty("--share", Math.max(0, score));
  $("b", card).textContent = score.toFixed(3);
  $(".rate", card).textContent = rateInWords(hit, item.attributes.source === "drawn");
  const time = item.captured_at && new Date(item.captured_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  $(".where", card).textContent = [item.camera && `camera ${item.camera}`, time].filter(Boolean).join(" · ");
  $(".again", card).addEventListener("click", searchLike(gallery, item));
  return card;
}

async function loadThumbnail(image, gallery, id) {
  try {
    const answer = await call(`${galleryPath(gallery)}/items/${encodeURIComponent(id)}/image`);
    image.src = URL.createObjectURL(await answer.blob());
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    image.closest(".thumbnail")?.classList.add("none");
  }
}

const waiting = new Map();
const observer = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    waiting.get(target)?.();
    waiting.delete(target);
  }
}, { rootMargin: "400px" });

function whenSeen(target, action) {
  waiting.set(target, action);
  observer.observe(target);
}

watchService();
attempt(load)();
