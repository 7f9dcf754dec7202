// The state of the page in its address, behind the #, so that Back, Forward and a copied link work.

import { useEffect, useState } from "./vendor/htm-preact.js";

export function parse(hash) {
  const [, view, query] = /^#\/([a-z]*)\??(.*)$/.exec(hash) ?? [null, "", ""];
  return { view: view || "search", params: new URLSearchParams(query) };
}

export const current = () => parse(location.hash);

export function address(view, params = {}) {
  const query = params instanceof URLSearchParams ? params : withFields(new URLSearchParams(), params);
  return `#/${view}${query.size ? `?${query}` : ""}`;
}

// Sets fields of `params`: a list repeats the name, an empty value removes it.
export function withFields(params, fields) {
  for (const [name, value] of Object.entries(fields)) {
    params.delete(name);
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") params.append(name, one);
  }
  return params;
}

export function navigate(view, params, { replace = false, dialog = false } = {}) {
  if (replace) history.replaceState(history.state, "", address(view, params));
  else history.pushState({ dialog }, "", address(view, params));
  dispatchEvent(new Event("navigated"));
}

// A click on a link that opens a dialog over the current view, so that closing it can be a step back.
export function openDialog(event) {
  if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const { view, params } = parse(event.currentTarget.getAttribute("href"));
  navigate(view, params, { dialog: true });
}

// Closes the dialog that `field` of the address opened.
export function closeDialog(field) {
  if (history.state?.dialog) history.back();
  else change({ [field]: null }, { replace: true });
}

// Changes fields of the current address.
export function change(fields, options) {
  const { view, params } = current();
  navigate(view, withFields(params, fields), options);
}

export function useRoute() {
  const [route, setRoute] = useState(current);
  useEffect(() => {
    const update = () => setRoute(current());
    const names = ["navigated", "popstate", "hashchange"];
    names.forEach((name) => addEventListener(name, update));
    return () => names.forEach((name) => removeEventListener(name, update));
  }, []);
  return route;
}
