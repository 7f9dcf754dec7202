// Requests to this server only, by relative addresses, so that the page also works behind a path prefix.

import { withFields } from "./route.js";
import { T } from "./strings.js";

const KEY = "vireid-key";
const listeners = new Set();

export class Problem extends Error {
  constructor(body, status, retryAfter = 1) {
    super(body.detail ?? body.title ?? T.answered(status));
    Object.assign(this, { body, status, retryAfter });
  }
}

export const currentKey = () => sessionStorage.getItem(KEY);

export function useKey(secret) {
  if (secret) sessionStorage.setItem(KEY, secret);
  else sessionStorage.removeItem(KEY);
}

// Calls `listener(rejected)` when the server asks for a key; `rejected`: one was sent.
export function onUnauthorized(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = currentKey();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: T.noConnection, detail: T.noConnectionDetail }, 0);
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    useKey(null);
    for (const listener of listeners) listener(Boolean(key));
  }
  const body = await answer.json().catch(() => ({}));
  throw new Problem(body, answer.status, Number(answer.headers.get("Retry-After")) || 1);
}

export const get = async (path) => (await call(path)).json();

export async function send(path, body, method = "POST", options = {}) {
  const isForm = body instanceof FormData;
  const headers = isForm || body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await call(path, { ...options, method, headers, body: isForm || body === undefined ? body : JSON.stringify(body) });
  return answer.status === 204 ? null : answer.json();
}

export const remove = (path) => send(path, undefined, "DELETE");

// Repeats an action that the server refuses for being busy.
export async function patiently(action) {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (error.status !== 429) throw error;
      await new Promise((resume) => setTimeout(resume, 1000 * error.retryAfter));
    }
  }
}

export async function pages(path, name) {
  const found = [];
  for (let cursor = ""; cursor !== null;) {
    const page = await get(`${path}?limit=1000${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
    found.push(...page[name]);
    cursor = page.next_cursor;
  }
  return found;
}

export const galleryPath = (name, rest = "") => `v1/galleries/${encodeURIComponent(name)}${rest}`;
export const itemPath = (gallery, id, rest = "") => galleryPath(gallery, `/items/${encodeURIComponent(id)}${rest}`);

// Fields of an object as a query string; lists repeat the name, empty values are left out.
export function queryString(fields) {
  const found = withFields(new URLSearchParams(), fields);
  return found.size ? `?${found}` : "";
}

