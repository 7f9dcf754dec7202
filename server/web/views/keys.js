// API keys: create, rotate, delete. For admins.

import { html, useState } from "../vendor/htm-preact.js";
import { get, queryString, remove, send } from "../api.js";
import { Field, MoreButton, ProblemBox, fromLocalInput, useAction } from "../components.js";
import { useData, usePaged } from "../data.js";
import { T, time } from "../strings.js";

const Secret = ({ made }) => made && html`<div class="note" role="status" id="secret"><b>${made.name}</b>: ${T.secretShown} ${made.old_secret_expires_at && T.rotated}
  <p><code>${made.secret}</code> <button type="button" class="quiet" onClick=${() => navigator.clipboard?.writeText(made.secret)}>${T.copy}</button></p></div>`;

function NewKey({ onMade }) {
  const { galleries } = useData();
  const [run, busy, error, clear] = useAction();
  const submit = run(async (event) => {
    const form = event.target, fields = new FormData(form);
    const chosen = fields.getAll("gallery");
    const rate = fields.get("rate");
    const body = { name: fields.get("name"), scopes: fields.getAll("scope"), galleries: chosen.length ? chosen : null, expires_at: fromLocalInput(fields.get("expires")) || null, limits: { requests_per_minute: rate ? Number(rate) : null } };
    onMade(await send("v1/keys", body));
    form.reset();
  });
  return html`<form class="panel" id="new-key" onSubmit=${submit}><h2>${T.newKey}</h2><${ProblemBox} error=${error} onClose=${clear}/>
    <${Field} label=${T.name}><input name="name" required maxlength="128" autocomplete="off"/><//>
    <fieldset><legend>${T.scopes}</legend><div class="row">${Object.entries(T.scope).map(([value, label]) => html`<label class="check"><input type="checkbox" name="scope" value=${value} checked=${value === "search"}/> ${label}</label>`)}</div></fieldset>
    ${galleries?.length > 0 && html`<fieldset><legend>${T.keyGalleries}</legend><div class="checks" tabindex="0" role="group" aria-label=${T.keyGalleries}>${galleries.map(({ name }) => html`<label class="check"><input type="checkbox" name="gallery" value=${name}/> ${name}</label>`)}</div></fieldset>`}
    <div class="pair"><${Field} label=${T.expires}><input name="expires" type="datetime-local"/><//><${Field} label=${T.perMinute}><input name="rate" type="number" min="1" max="1000000" placeholder=${T.any}/><//></div>
    <button class="primary wide" disabled=${busy}>${T.create}</button></form>`;
}

export function Keys() {
  const [made, setMade] = useState(null);
  const [run, busy, error, clear] = useAction();
  const list = usePaged((cursor) => get(`v1/keys${queryString({ limit: 100, cursor })}`), "keys", []);
  const show = (key) => { setMade(key); list.reload(); };
  const rotate = ({ id }) => run(async () => show(await send(`v1/keys/${id}/rotate`, {})));
  const drop = ({ id, name }) => run(async () => {
    if (!confirm(T.deleteKey(name))) return;
    await remove(`v1/keys/${id}`);
    list.reload();
  });
  if (list.error?.status === 403) return html`<p class="note">${T.adminOnly}</p>`;
  return html`<div class="columns"><section class="panel"><h2>${T.views.keys}</h2><${ProblemBox} error=${error ?? list.error} onClose=${error && clear}/><${Secret} made=${made}/>
    <ul class="lines" id="keys">${list.rows.map((key) => html`<li key=${key.id}><div><b>${key.name}</b> ${key.scopes.map((scope) => html`<span class="chip">${T.scope[scope]}</span> `)}
      <small>${[key.galleries?.join(", "), `${T.expires}: ${time(key.expires_at) || T.never}`, `${T.lastUsed}: ${time(key.last_used_at) || T.never}`].filter(Boolean).join(" · ")}</small></div>
      <span class="row"><button type="button" class="quiet" aria-label=${T.rotateTitle(key.name)} disabled=${busy} onClick=${rotate(key)}>${T.rotate}</button><button type="button" class="danger" aria-label=${T.deleteKeyTitle(key.name)} disabled=${busy} onClick=${drop(key)}>${T.remove}</button></span></li>`)}
      ${!list.loading && !list.rows.length && html`<li class="none">${T.noKeys}</li>`}</ul><${MoreButton} more=${list.more && !list.error} loading=${list.loading} onMore=${list.next}/></section>
    <${NewKey} onMade=${show}/></div>`;
}
