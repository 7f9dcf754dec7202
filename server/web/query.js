// A search in the address, as a request, and its pages of hits; recent ones are kept, so that Back shows them at once.

import { galleryPath, patiently, send } from "./api.js";
import { cropsOf } from "./crops.js";
import { useEffect, useState } from "./vendor/htm-preact.js";
import { listOf, parseAttributes } from "./components.js";

const PAGE = 24;
const GROUPED = 200; // grouped hits have no further pages
const SHOWN = ["layout", "open", "right", "wrong", "trail"]; // fields that change what is shown, not what is searched
const KEPT = 30;
const recent = new Map();

export function searchOf(params) {
  const crops = params.get("q")?.split(".") ?? [];
  if (!crops.length && !params.get("item")) return null;
  const fields = new URLSearchParams([...params].filter(([name]) => !SHOWN.includes(name)));
  fields.sort();
  return { params, crops, item: params.get("item"), gallery: params.get("gallery"), key: fields.toString() };
}

function options({ params }, cursor) {
  const numeric = (name) => (params.get(name) ? Number(params.get(name)) : null);
  const labels = (name) => (params.getAll(name).length ? params.getAll(name) : null);
  const grouped = params.get("group") === "identity";
  const [right, wrong] = [params.getAll("fr"), params.getAll("fw")];
  return {
    k: grouped ? GROUPED : PAGE,
    fusion: params.get("fusion") ?? "mean",
    group_by: grouped ? "identity" : null,
    min_score: numeric("min"),
    max_expected_false_hits: numeric("efh"),
    ...(right.length || wrong.length ? { feedback: { right, wrong } } : {}),
    cursor,
    paginate: !grouped,
    filter: {
      modality: { all: null }[params.get("in")] === null ? null : params.get("in") ?? "opposite",
      cameras: labels("cam"),
      identities: params.get("who") ? listOf(params.get("who")) : null,
      captured_from: params.get("from"),
      captured_to: params.get("to"),
      attributes: parseAttributes(params.get("attr") ?? ""),
    },
  };
}

function request(search, cursor) {
  const path = galleryPath(search.gallery, "/search");
  const query = options(search, cursor);
  if (search.item) return patiently(() => send(path, { query, item_id: search.item }));
  const form = new FormData();
  for (const { file } of cropsOf(search.crops)) form.append("images", file);
  form.append("modality", search.params.get("as") ?? "auto");
  form.append("query", JSON.stringify(query));
  return patiently(() => send(path, form));
}

function keep(key, found) {
  recent.delete(key);
  recent.set(key, found);
  if (recent.size > KEPT) recent.delete(recent.keys().next().value);
}

// {answer, hits, cursor, loading, error, lost, next, again} of the search in the address; null without one.
export function useSearch(params) {
  const search = searchOf(params);
  const key = search?.key ?? null;
  const [state, setState] = useState({ key: null });
  const [round, setRound] = useState(0);
  const lost = search !== null && !search.item && cropsOf(search.crops).length < search.crops.length;
  const run = async (cursor, before) => {
    setState({ ...before, key, loading: true, error: null });
    try {
      const answer = await request(search, cursor);
      const found = { key, answer: before.answer ?? answer, hits: [...(before.hits ?? []), ...answer.hits], cursor: answer.next_cursor };
      keep(key, found);
      setState((old) => (old.key === key ? found : old));
    } catch (error) {
      setState((old) => (old.key === key ? { ...before, key, error } : old));
    }
  };
  useEffect(() => {
    if (search === null || lost) setState({ key });
    else if (recent.has(key)) setState(recent.get(key));
    else run(null, {});
  }, [key, round]);
  if (search === null) return null;
  const shown = state.key === key ? state : { key, loading: true };
  return { ...shown, search, lost, next: () => run(shown.cursor, shown), again: () => { recent.delete(key); setRound((old) => old + 1); } };
}
