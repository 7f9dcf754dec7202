// The items of a gallery: browse, filter, change, delete; erase a person.

import { html, useState } from "../vendor/htm-preact.js";
import { galleryPath, get, itemPath, queryString, remove, send } from "../api.js";
import { Badges, Dialog, Empty, Field, Modality, MoreButton, ProblemBox, Thumbnail, fromLocalInput, parseAttributes, toLocalInput, useAction } from "../components.js";
import { useLoaded, usePaged } from "../data.js";
import { address, change, closeDialog, openDialog, withFields } from "../route.js";
import { T, time } from "../strings.js";
import { Properties } from "./pair.js";

const LIMIT = 60;
const FILTERS = ["identities", "cameras", "modality", "captured_from", "captured_to", "warnings"];

function ItemFilters({ params, summary }) {
  const value = (name) => params.get(name) ?? "";
  const set = (name) => (event) => change({ [name]: event.target.value }, { replace: true });
  const select = (name, label, options) => html`<${Field} label=${label}><select onChange=${set(name)}>
    <option value="">${T.any}</option>${options.map((one) => html`<option value=${one} selected=${one === value(name)}>${one}</option>`)}</select><//>`;
  const timed = (name, label) => html`<${Field} label=${label}><input type="datetime-local" step="1" value=${toLocalInput(params.get(name))} onChange=${(event) => change({ [name]: fromLocalInput(event.target.value) }, { replace: true })}/><//>`;
  return html`<form class="filters" aria-label=${T.filters} onSubmit=${(event) => event.preventDefault()}>
    <${Field} label=${T.identity}><input id="filter-identity" value=${value("identities")} placeholder=${T.any} onChange=${set("identities")}/><//>
    ${select("cameras", T.camera, Object.keys(summary?.cameras ?? {}))}${select("modality", T.modality, ["visible", "infrared"])}
    ${timed("captured_from", T.from)}${timed("captured_to", T.to)}${select("warnings", T.warnings, ["too_small", "too_dark", "blurred", "not_person_shaped"])}</form>`;
}

function ItemDialog({ gallery, id, onClose, onChange }) {
  const { value: item, error } = useLoaded(() => get(itemPath(gallery, id)), [gallery, id]);
  const [run, busy, failed, clear] = useAction();
  const [saved, setSaved] = useState(false);
  const save = run(async (event) => {
    const fields = new FormData(event.target);
    const text = (name) => fields.get(name).trim() || null;
    const captured = fields.get("captured") === toLocalInput(item.captured_at) ? {} : { captured_at: fromLocalInput(fields.get("captured")) || null };
    await send(itemPath(gallery, id), { identity: text("identity"), camera: text("camera"), attributes: parseAttributes(fields.get("attributes")), ...captured }, "PATCH");
    setSaved(true);
    onChange();
  });
  const erase = run(async () => {
    if (!confirm(T.deleteItemSure)) return;
    await remove(itemPath(gallery, id));
    onChange();
    onClose();
  });
  const lines = item && Object.entries(item.attributes).map(([name, value]) => `${name}=${value}`).join("\n");
  return html`<${Dialog} label=${T.item(id)} onClose=${onClose} wide><${ProblemBox} error=${error ?? failed} onClose=${failed && clear}/>
    ${item && html`<div class="item"><${Thumbnail} gallery=${gallery} id=${id} alt=${T.item(id)}/><form onSubmit=${save}>
      <${Properties} rows=${[[T.modality, html`<${Modality} of=${item.modality}/>`], [T.checksum, item.content_sha256 && html`<code>${item.content_sha256}</code>`]]}/><${Badges} warnings=${item.warnings}/>
      <div class="pair"><${Field} label=${T.identity}><input name="identity" maxlength="256" value=${item.identity ?? ""}/><//>
        <${Field} label=${T.camera}><input name="camera" maxlength="256" value=${item.camera ?? ""}/><//></div>
      <${Field} label=${T.capturedAt}><input name="captured" type="datetime-local" step="1" value=${toLocalInput(item.captured_at)}/><//>
      <${Field} label=${T.attributesEdit}><textarea name="attributes" rows="3">${lines}</textarea><//>
      <div class="row"><button class="primary" disabled=${busy}>${T.save}</button>${saved && html`<span role="status">${T.saved}</span>`}
        <a href=${address("search", { gallery, item: id })}>${T.searchWith}</a><button type="button" class="danger push" onClick=${erase}>${T.deleteItem}</button></div>
    </form></div>`}<//>`;
}

const Receipt = ({ receipt }) => html`<div class="note" role="status"><b>${T.receipt} <code>${receipt.id}</code></b> ${T.receiptLine(receipt)} ${Object.values(receipt.left).some(Boolean) ? T.receiptLeft : T.receiptComplete}</div>`;

function Erase({ gallery, onChange }) {
  const [who, setWho] = useState("");
  const [count, setCount] = useState(null);
  const [receipt, setReceipt] = useState(null);
  const [run, busy, error, clear] = useAction();
  const filter = queryString({ identities: who });
  const ask = run(async () => { setReceipt(null); setCount((await get(galleryPath(gallery, `/summary${filter}`))).items); });
  const erase = run(async () => { setReceipt((await remove(galleryPath(gallery, `/items${filter}`))).receipt); setCount(null); onChange(); });
  return html`<details class="erase"><summary>${T.erase}</summary><p class="hint">${T.eraseHint}</p><${ProblemBox} error=${error} onClose=${clear}/>
    <form class="row" onSubmit=${ask}><${Field} label=${T.identity}><input id="erase-identity" required maxlength="256" value=${who} onInput=${(event) => { setWho(event.target.value); setCount(null); }}/><//>
      <button class="quiet" disabled=${busy}>${T.eraseCount}</button></form>
    ${count !== null && html`<p class="note" role="status">${count ? T.eraseFound(count, who) : T.eraseNothing(who)}
      ${count > 0 && html` <button type="button" class="danger" disabled=${busy} onClick=${erase}>${T.eraseNow(count)}</button>`}</p>`}
    ${receipt && html`<${Receipt} receipt=${receipt}/>`}</details>`;
}

export function Items({ gallery, summary, params, onChange }) {
  const [round, setRound] = useState(0);
  const filter = Object.fromEntries(FILTERS.map((name) => [name, params.get(name)]));
  const list = usePaged((cursor) => get(galleryPath(gallery.name, `/items${queryString({ ...filter, limit: LIMIT, cursor })}`)), "items", [gallery.name, JSON.stringify(filter), round]);
  const changed = () => { setRound((old) => old + 1); onChange(); };
  return html`<${ItemFilters} params=${params} summary=${summary}/><div><${ProblemBox} error=${list.error} onRetry=${list.reload}/></div>
    <ul class="items" id="items">${list.rows.map((item) => html`<li key=${item.id}><a class="thumbnail" href=${address("galleries", withFields(new URLSearchParams(params), { item: item.id }))} onClick=${openDialog}>
      <span class="unseen">${T.item(item.id)}</span><${Thumbnail} gallery=${gallery.name} id=${item.id} alt=""/><${Modality} of=${item.modality}/></a>
      <p class="who" title=${item.id}>${item.identity ?? item.id}</p><p class="where">${[item.camera && T.cameraOf(item.camera), time(item.captured_at)].filter(Boolean).join(" · ")}</p></li>`)}</ul>
    <div>${!list.loading && !list.error && !list.rows.length && html`<${Empty}><p>${T.noItems}</p><//>`}</div>
    <${MoreButton} more=${list.more && !list.error} loading=${list.loading} onMore=${list.next}/>
    <${Erase} gallery=${gallery.name} onChange=${changed}/>
    <div>${params.get("item") && html`<${ItemDialog} gallery=${gallery.name} id=${params.get("item")} onClose=${() => closeDialog("item")} onChange=${changed}/>`}</div>`;
}
