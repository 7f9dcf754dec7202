// What can be changed of a gallery: description, retention, aliases, archive, model, calibration, deletion.

import { html, useState } from "../vendor/htm-preact.js";
import { call, galleryPath, get, remove, send } from "../api.js";
import { Field, ProblemBox, useAction } from "../components.js";
import { useData, useLoaded } from "../data.js";
import { navigate } from "../route.js";
import { T } from "../strings.js";

// A part of the settings with its own action and errors; `children(run, busy)`.
function Part({ title, hint, id, children }) {
  const [run, busy, error, clear] = useAction();
  return html`<section class="panel" id=${id}><h2>${title}</h2>${hint && html`<p class="hint">${hint}</p>`}<${ProblemBox} error=${error} onClose=${clear}/>${children(run, busy)}</section>`;
}

const toJob = (run, path, body) => run(async () => navigate("jobs", { id: (await send(path, body)).id }));

function Basics({ gallery, onChange }) {
  const [saved, setSaved] = useState(false);
  const save = async (event) => {
    const fields = new FormData(event.target);
    const days = fields.get("retention");
    await send(galleryPath(gallery.name), { description: fields.get("description") || null, retention_days: days ? Number(days) : null }, "PATCH");
    setSaved(true);
    onChange();
  };
  return html`<${Part} title=${T.tabs.settings}>${(run, busy) => html`<form class="stack" onSubmit=${run(save)}>
    <${Field} label=${T.description}><input name="description" maxlength="1024" value=${gallery.description ?? ""}/><//>
    <${Field} label=${T.retention}><input name="retention" type="number" min="1" max="36500" placeholder=${T.retentionHint} value=${gallery.retention_days ?? ""}/><//>
    <div class="row"><button class="primary" disabled=${busy}>${T.save}</button>${saved && html`<span role="status">${T.saved}</span>`}</div></form>`}<//>`;
}

function Aliases({ gallery }) {
  const { aliases, reload } = useData();
  const own = aliases.filter((one) => one.gallery === gallery.name);
  const path = (alias) => `v1/aliases/${encodeURIComponent(alias)}`;
  const add = async (event) => {
    await send(path(new FormData(event.target).get("alias")), { gallery: gallery.name }, "PUT");
    event.target.reset();
    await reload();
  };
  return html`<${Part} title=${T.aliases} hint=${T.aliasHint}>${(run, busy) => html`<ul class="lines">${own.map(({ alias }) => html`<li key=${alias}><b>${alias}</b>
      <button type="button" class="danger push" aria-label=${T.deleteOne(alias)} onClick=${run(async () => { await remove(path(alias)); await reload(); })}>${T.remove}</button></li>`)}
      ${!own.length && html`<li class="none">${T.noAliases}</li>`}</ul>
    <form class="row" onSubmit=${run(add)}><${Field} label=${T.newAlias}><input name="alias" required maxlength="128" pattern="[A-Za-z0-9._:\\-]{1,128}" autocomplete="off"/><//><button class="quiet" disabled=${busy}>${T.add}</button></form>`}<//>`;
}

async function download(gallery) {
  const blob = await (await call(galleryPath(gallery, "/snapshot"))).blob();
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${gallery}.tar` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const Archive = ({ gallery }) => html`<${Part} title=${T.archive} hint=${T.archiveHint}>${(run, busy) => html`<button type="button" class="quiet" disabled=${busy} onClick=${run(() => download(gallery.name))}>${busy ? T.loading : T.download}</button>`}<//>`;

function Reembed({ gallery }) {
  const others = useData().models?.models.filter(({ fingerprint }) => fingerprint !== gallery.fingerprint) ?? [];
  const [model, setModel] = useState(others[0]?.name);
  return html`<${Part} title=${T.reembed} hint=${T.reembedHint}>${(run, busy) => (others.length ? html`<form class="row" onSubmit=${toJob(run, galleryPath(gallery.name, "/reembed"), { model })}>
    <${Field} label=${T.model}><select onChange=${(event) => setModel(event.target.value)}>${others.map(({ name }) => html`<option value=${name} selected=${name === model}>${name}</option>`)}</select><//>
    <button class="quiet" disabled=${busy}>${T.reembedNow}</button></form>` : html`<p>${T.oneModel}</p>`)}<//>`;
}

function Calibration({ gallery }) {
  const path = galleryPath(gallery.name, "/calibrations");
  const found = useLoaded(() => get(path), [gallery.name]).value?.calibrations ?? [];
  return html`<${Part} title=${T.calibrate} hint=${T.calibrateHint}>${(run, busy) => html`<ul class="lines">${found.map((one) => html`<li>${T.calibrationRow(one)}</li>`)}${!found.length && html`<li class="none">${T.noCalibration}</li>`}</ul>
    <button type="button" class="quiet" disabled=${busy} onClick=${toJob(run, path, {})}>${T.calibrateNow}</button>`}<//>`;
}

function Deletion({ gallery }) {
  const { reload } = useData();
  const [typed, setTyped] = useState("");
  const erase = async () => { await remove(galleryPath(gallery.name)); await reload(); navigate("galleries", {}); };
  return html`<${Part} title=${T.deleteGallery} hint=${T.deleteGalleryHint} id="delete-gallery">${(run, busy) => html`<form class="row" onSubmit=${run(erase)}>
    <${Field} label=${T.confirmTyped(gallery.name)}><input autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)}/><//>
    <button class="danger" disabled=${busy || typed !== gallery.name}>${T.deleteGallery}</button></form>`}<//>`;
}

export const GallerySettings = ({ gallery, onChange }) => html`<div class="tiles">
  <${Basics} gallery=${gallery} onChange=${onChange}/><${Aliases} gallery=${gallery}/><${Calibration} gallery=${gallery}/>
  <${Archive} gallery=${gallery}/><${Reembed} gallery=${gallery}/><${Deletion} gallery=${gallery}/></div>`;
