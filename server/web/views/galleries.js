// All galleries, a new one, or one gallery with its parts.

import { html, useState } from "../vendor/htm-preact.js";
import { call, galleryPath, get, send } from "../api.js";
import { Field, ProblemBox, useAction } from "../components.js";
import { useData, useLoaded } from "../data.js";
import { address, navigate } from "../route.js";
import { T, plural, time } from "../strings.js";
import { Adding } from "./adding.js";
import { Duplicates } from "./duplicates.js";
import { Items } from "./items.js";
import { GallerySettings } from "./settings.js";

const PARTS = { items: Items, add: Adding, duplicates: Duplicates, settings: GallerySettings };

function NewGallery() {
  const { models, reload } = useData();
  const [run, busy, error, clear] = useAction();
  const submit = run(async (event) => {
    const fields = new FormData(event.target);
    const name = fields.get("name");
    await send("v1/galleries", {
      name,
      model: fields.get("model"),
      description: fields.get("description") || null,
      retention_days: fields.get("retention") ? Number(fields.get("retention")) : null,
      vector_type: fields.get("vectors"),
      thumbnails: fields.get("thumbnails") !== null,
    });
    await reload();
    navigate("galleries", { name, part: "add" });
  });
  return html`<form id="create" class="panel" onSubmit=${submit}><h2>${T.newGallery}</h2><${ProblemBox} error=${error} onClose=${clear}/>
    <${Field} label=${T.name} hint=${T.nameHint}><input id="new-name" name="name" required pattern="[A-Za-z0-9._:\\-]{1,128}" maxlength="128" autocomplete="off" spellcheck="false"/><//>
    <${Field} label=${T.model}><select id="new-model" name="model">${models?.models.map(({ name }) => html`<option value=${name} selected=${name === models.default}>${name}</option>`)}</select><//>
    <${Field} label=${T.description}><input name="description" maxlength="1024"/><//>
    <div class="pair"><${Field} label=${T.retention}><input name="retention" type="number" min="1" max="36500" placeholder=${T.retentionHint}/><//>
      <${Field} label=${T.vectorType}><select name="vectors">${Object.entries(T.vectorTypes).map(([value, label]) => html`<option value=${value}>${label}</option>`)}</select><//></div>
    <label class="check"><input type="checkbox" name="thumbnails" checked/> ${T.thumbnails}</label>
    <button class="primary wide" disabled=${busy}>${T.create}</button></form>`;
}

function Restore() {
  const [run, busy, error, clear] = useAction();
  const submit = run(async (event) => {
    const fields = new FormData(event.target);
    const options = { method: "POST", body: fields.get("archive"), headers: { "Content-Type": "application/x-tar" } };
    const { id } = await (await call(galleryPath(fields.get("name"), "/restore"), options)).json();
    navigate("jobs", { id });
  });
  return html`<form id="restore" class="panel" onSubmit=${submit}><h2>${T.restore}</h2><p class="hint">${T.archiveHint}</p><${ProblemBox} error=${error} onClose=${clear}/>
    <${Field} label=${T.name} hint=${T.nameHint}><input name="name" required pattern="[A-Za-z0-9._:\\-]{1,128}" maxlength="128" autocomplete="off"/><//>
    <${Field} label=${T.archive}><input name="archive" type="file" accept=".tar" required/><//>
    <button class="quiet wide" disabled=${busy}>${T.restoreNow}</button></form>`;
}

function AllGalleries() {
  const { galleries, aliases } = useData();
  const aliasesOf = (name) => aliases.filter(({ gallery }) => gallery === name).map(({ alias }) => alias);
  return html`<div class="columns"><section class="panel"><h2>${T.views.galleries}</h2>
    <ul id="gallery-list" class="lines">${galleries?.map(({ name, items, model, description, created_at }) => html`<li key=${name}>
      <div><a href=${address("galleries", { name })}><b>${name}</b></a>${aliasesOf(name).map((alias) => html` <span class="chip">${alias}</span>`)}
        <small>${[description, `${T.created} ${time(created_at)}`].filter(Boolean).join(" · ")}</small></div>
      <span class="details-line">${plural(items, "item")} · ${model}</span></li>`)}
      ${galleries?.length === 0 && html`<li class="none">${T.noneYet}</li>`}</ul></section>
    <div class="stack"><${NewGallery}/><${Restore}/></div></div>`;
}

function OneGallery({ params }) {
  const { galleries, reload } = useData();
  const [round, setRound] = useState(0);
  const name = params.get("name"), part = params.get("part") ?? "items";
  const gallery = useLoaded(() => get(galleryPath(name)), [name, round]);
  const summary = useLoaded(() => get(galleryPath(name, "/summary")), [name, round]).value;
  const changed = () => { setRound((old) => old + 1); reload(); };
  const Part = PARTS[part] ?? Items;
  return html`<section class="one"><p class="crumbs"><a href=${address("galleries")}>${T.allGalleries}</a> / <b>${gallery.value?.name ?? name}</b></p>
    <${ProblemBox} error=${gallery.error}/>
    ${summary && html`<p class="hint" id="gallery-summary">${T.summaryLine(summary)}</p>`}
    <nav class="parts" aria-label=${T.tabList}>${Object.entries(T.tabs).map(([key, label]) => html`<a href=${address("galleries", { name, part: key === "items" ? null : key })} aria-current=${key === part ? "page" : null}>${label}</a>`)}
      <a class="push" href=${address("search", { gallery: name })}>${T.views.search}</a></nav>
    ${gallery.value && galleries && html`<${Part} key=${`${name} ${part}`} gallery=${gallery.value} summary=${summary} params=${params} onChange=${changed}/>`}</section>`;
}

export const Galleries = ({ params }) => (params.get("name") ? html`<${OneGallery} params=${params}/>` : html`<${AllGalleries}/>`);
