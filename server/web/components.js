// Parts that several views share.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { call, itemPath } from "./api.js";
import { T, WARNINGS } from "./strings.js";

export const IMAGES = "image/jpeg,image/png,image/webp,image/bmp,image/tiff,image/gif,image/avif,.jfif";

// What went wrong: title, each invalid field, and a way on. `names` gives an index of the form its file name.
export function ProblemBox({ error, names = [], onClose, onRetry }) {
  const box = useRef(null);
  useEffect(() => { if (error) box.current?.scrollIntoView({ block: "nearest" }); }, [error]);
  if (!error || error.status === 401 || error.name === "AbortError") return null;
  const faults = (error.body?.errors ?? []).slice(0, 8);
  const nameOf = (field) => names[/^images\[(\d+)\]$/.exec(field)?.[1]] ?? field;
  return html`<div class="alert" role="alert" ref=${box}>
    <div><strong>${error.body?.title ?? T.unexpected}</strong>
    ${faults.length
      ? html`<ul>${faults.map(({ field, detail }) => html`<li><code>${nameOf(field)}</code> ${detail}</li>`)}</ul>`
      : html` – ${error.message}`}</div>
    ${onRetry && html`<button type="button" class="quiet" onClick=${onRetry}>${T.retry}</button>`}
    ${onClose && html`<button type="button" class="icon" aria-label=${T.dismiss} onClick=${onClose}>×</button>`}
  </div>`;
}

// Runs actions one at a time: [run, busy, error, clear]; an error is shown, not thrown.
export function useAction() {
  const [state, setState] = useState({ busy: false, error: null });
  const run = (action) => async (event) => {
    event?.preventDefault?.();
    setState({ busy: true, error: null });
    try {
      const result = await action(event);
      setState({ busy: false, error: null });
      return result;
    } catch (error) {
      if (error.status === undefined && error.name !== "AbortError") console.error(error);
      setState({ busy: false, error });
      return undefined;
    }
  };
  return [run, state.busy, state.error, () => setState({ busy: false, error: null })];
}

export const Field = ({ label, children, hint }) =>
  html`<label class="field"><span>${label}</span>${children}${hint && html`<small>${hint}</small>`}</label>`;

export const Choice = ({ label, name, value, options, onChange }) => html`<fieldset>
  <legend>${label}</legend>
  <div class="choice">${options.map(([key, text]) => html`<label key=${key}>
    <input type="radio" name=${name} value=${key} checked=${key === value} onChange=${() => onChange(key)}/><span>${text}</span>
  </label>`)}</div>
</fieldset>`;

export const modalityOptions = [["auto", T.auto], ["visible", T.visible], ["infrared", T.infrared]];

export const Badges = ({ warnings, label }) => Boolean(warnings?.length) && html`<ul class="warnings" aria-label=${label ?? T.warnings}>
  ${warnings.map((warning) => html`<li class="warning" title=${WARNINGS[warning]?.[1]}>${WARNINGS[warning]?.[0] ?? warning}</li>`)}
</ul>`;

export const Modality = ({ of }) => html`<span class=${`modality ${of}`}>${of}</span>`;

export const Empty = ({ title, children, picture = true }) => html`<div class="empty">
  ${picture && html`<svg viewBox="0 0 120 72" aria-hidden="true">
    <g class="visible"><circle cx="38" cy="20" r="10"/><path d="M19 66V54a19 19 0 0 1 38 0v12"/></g>
    <g class="infrared"><circle cx="82" cy="20" r="10"/><path d="M63 66V54a19 19 0 0 1 38 0v12"/></g>
    <path class="link" d="M52 20h16"/></svg>`}
  ${title && html`<h2>${title}</h2>`}
  ${children}
</div>`;

// A stored item's picture, fetched when it comes near the screen.
export function Thumbnail({ gallery, id, alt, fallback = T.noImage }) {
  const holder = useRef(null);
  const [state, setState] = useState({ url: null, missing: false });
  useEffect(() => {
    let url = null, gone = false;
    const load = async () => {
      try {
        const blob = await (await call(itemPath(gallery, id, "/image"))).blob();
        if (gone) return;
        url = URL.createObjectURL(blob);
        setState({ url, missing: false });
      } catch {
        if (!gone) setState({ url: null, missing: true });
      }
    };
    const observer = new IntersectionObserver(([{ isIntersecting }]) => {
      if (isIntersecting) {
        observer.disconnect();
        load();
      }
    }, { rootMargin: "400px" });
    observer.observe(holder.current);
    return () => {
      gone = true;
      observer.disconnect();
      if (url) URL.revokeObjectURL(url);
    };
  }, [gallery, id]);
  return html`<span class="picture" ref=${holder}>
    ${state.url && html`<img src=${state.url} alt=${alt}/>`}${state.missing && html`<span class="none">${fallback}</span>`}
  </span>`;
}

// A modal window; Escape and a click outside close it. Its place among its siblings must not change: a dialog that is
// moved in the document is modal no more.
export function Dialog({ label, onClose, children, wide = false }) {
  const dialog = useRef(null);
  useEffect(() => {
    dialog.current.showModal();
    return () => dialog.current?.close();
  }, []);
  const outside = (event) => { if (event.target === dialog.current) onClose(); };
  return html`<dialog ref=${dialog} class=${wide ? "wide" : ""} aria-label=${label} onCancel=${(event) => { event.preventDefault(); onClose(); }} onMouseDown=${outside}>
    <div class="dialog-head"><h2>${label}</h2><button type="button" class="icon" aria-label=${T.close} onClick=${onClose}>×</button></div>
    ${children}
  </dialog>`;
}

// Files of a drop: folders are walked; each file has its path as `path`.
async function droppedFiles(transfer) {
  const entries = [...transfer.items].filter(({ kind }) => kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  const walk = async (entry, prefix) => {
    if (entry instanceof File) {
      found.push(Object.assign(entry, { path: entry.name }));
    } else if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      found.push(Object.assign(file, { path: prefix + entry.name }));
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      for (let part = []; ;) {
        part = await new Promise((done, failed) => reader.readEntries(done, failed));
        if (!part.length) break;
        for (const one of part) await walk(one, `${prefix}${entry.name}/`);
      }
    }
  };
  for (const entry of entries.filter(Boolean)) await walk(entry, "");
  return found;
}

export function Drop({ id, title, hint, accept = IMAGES, multiple = true, tall = false, onFiles }) {
  const [over, setOver] = useState(false);
  const enter = (event) => { event.preventDefault(); setOver(true); };
  const choose = (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    onFiles(files.map((file) => Object.assign(file, { path: file.webkitRelativePath || file.name })));
  };
  const drop = async (event) => {
    event.preventDefault();
    setOver(false);
    onFiles(await droppedFiles(event.dataTransfer));
  };
  return html`<label class=${`drop${over ? " over" : ""}${tall ? " tall" : ""}`} onDragEnter=${enter} onDragOver=${enter} onDragLeave=${() => setOver(false)} onDrop=${drop}>
    <input id=${id} type="file" accept=${accept} multiple=${multiple} onChange=${choose}/>
    <svg viewBox="0 0 48 48" aria-hidden="true"><circle cx="24" cy="13" r="7"/><path d="M10 44v-9a14 14 0 0 1 28 0v9"/></svg>
    <strong>${title}</strong><span>${hint}</span>
  </label>`;
}

// Calls `onSeen` when the end of a list comes near the screen; a button does the same by keyboard.
export function MoreButton({ more, loading, onMore, automatic = true }) {
  const button = useRef(null);
  useEffect(() => {
    if (!more || loading || !automatic) return undefined;
    const observer = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && onMore(), { rootMargin: "300px" });
    observer.observe(button.current);
    return () => observer.disconnect();
  });
  return html`<div>${more && html`<button type="button" class="quiet more" ref=${button} disabled=${loading} onClick=${onMore}>${loading ? T.loading : T.showMore}</button>`}</div>`;
}

// "a=1, b=x" or one a line, as an object; numbers, true and false keep their type.
export function parseAttributes(text) {
  const pairs = text.split(/[,\n]/).map((part) => part.trim()).filter(Boolean).map((part) => part.split(/=(.*)/s));
  return Object.fromEntries(pairs.map(([name, value = ""]) => [name.trim(), typed(value.trim())]));
}

function typed(value) {
  if (value === "true" || value === "false") return value === "true";
  return value !== "" && Number.isFinite(Number(value)) ? Number(value) : value;
}

export const listOf = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);

// Times of `datetime-local` inputs are local; the API has UTC.
export const toLocalInput = (iso) => {
  if (!iso) return "";
  const time = new Date(iso);
  return new Date(time - 60_000 * time.getTimezoneOffset()).toISOString().slice(0, 19);
};
export const fromLocalInput = (text) => (text ? new Date(text).toISOString() : "");
