// Add crops to a gallery: files, folders and archives.

import { html, useRef, useState } from "../vendor/htm-preact.js";
import { Problem, call, galleryPath } from "../api.js";
import { Badges, Choice, Drop, Field, ProblemBox, modalityOptions } from "../components.js";
import { useData } from "../data.js";
import { address } from "../route.js";
import { T } from "../strings.js";
import { archiveType, isPicture, uniqueFiles, upload } from "../upload.js";

const noCounts = () => ({ done: 0, added: 0, updated: 0, failed: 0, warned: 0 });
const folderOf = (path) => path.split("/").at(-2);

function Progress({ work }) {
  const { counts, total, failures, warned } = work;
  return html`<progress id="add-progress" value=${counts.done} max=${total} aria-label=${T.cropsAdded}></progress>
    <p id="add-text" role="status">${T.addedLine(counts, total)}</p>
    ${failures.length > 0 && html`<h3>${T.addFailures}</h3><ul id="add-failures" tabindex="0">${failures.slice(0, 200).map(([name, reason]) => html`<li>${name}: ${reason}</li>`)}</ul>`}
    ${warned.length > 0 && html`<ul id="add-warnings" tabindex="0" aria-label=${T.warnings}>${warned.slice(0, 200).map(([name, warnings]) => html`<li>${name} <${Badges} warnings=${warnings}/></li>`)}</ul>`}`;
}

async function startImport(gallery, file, modality) {
  const answer = await call(galleryPath(gallery, `/imports?modality=${modality}`), { method: "POST", body: file, headers: { "Content-Type": archiveType(file) } });
  return answer.json();
}

export function Adding({ gallery, onChange }) {
  const { limits } = useData();
  const [fields, setFields] = useState({ modality: "auto", camera: "", byFolder: false });
  const [work, setWork] = useState(null);
  const [jobs, setJobs] = useState([]);
  const [sending, setSending] = useState(null);
  const [error, setError] = useState(null);
  const stop = useRef(null);
  const running = stop.current !== null;
  const fieldsOf = (file) => ({
    modality: fields.modality,
    ...(fields.camera && { camera: fields.camera }),
    ...(fields.byFolder && folderOf(file.path) && { identity: folderOf(file.path) }),
  });
  const sendFiles = async (files, before) => {
    stop.current = new AbortController();
    const show = (more) => setWork({ ...before, ...more });
    show({ rest: [] });
    try {
      const rest = await upload(gallery.name, files, { limits, fieldsOf, signal: stop.current.signal, onProgress: () => show({ rest: [] }), ...before });
      stop.current = null;
      show({ rest });
    } catch (failed) {
      stop.current = null;
      show({ rest: failed.rest ?? [] });
      setError(failed);
    }
    onChange();
  };
  const add = async (files) => {
    setError(null);
    const pictures = uniqueFiles(files.filter(isPicture));
    const archives = files.filter(archiveType);
    if (!pictures.length && !archives.length) {
      setError(new Problem({ title: T.nothingToAdd, detail: T.nothingToAddDetail }, 0));
      return;
    }
    try {
      for (const file of archives) {
        setSending(file.name);
        const job = await startImport(gallery.name, file, fields.modality);
        setJobs((old) => [...old, job]);
      }
    } catch (failed) {
      setError(failed);
    }
    setSending(null);
    if (pictures.length) await sendFiles(pictures, { counts: noCounts(), failures: [], warned: [], total: pictures.length });
  };
  const folder = (event) => {
    const files = [...event.target.files].map((file) => Object.assign(file, { path: file.webkitRelativePath || file.name }));
    event.target.value = "";
    add(files);
  };
  const set = (more) => setFields((old) => ({ ...old, ...more }));
  return html`<div id="add" class="columns"><div class="panel"><h2>${T.addTitle}</h2>
      <${Choice} label=${T.addModality} name="add-modality" value=${fields.modality} options=${modalityOptions} onChange=${(modality) => set({ modality })}/>
      <${Field} label=${T.addCamera}><input id="add-camera" placeholder=${T.optional} maxlength="256" autocomplete="off" value=${fields.camera} onInput=${(event) => set({ camera: event.target.value })}/><//>
      <label class="check"><input id="add-identity" type="checkbox" checked=${fields.byFolder} onChange=${(event) => set({ byFolder: event.target.checked })}/> ${T.identityFromFolder}</label>
      <p class="hint">${T.sameName}</p></div>
    <div class="panel">
      <${Drop} id="add-files" accept="" title=${T.dropAdd} hint=${T.dropAddHint} tall onFiles=${add}/>
      <label class="quiet button">${T.chooseFolder}<input id="add-folder" class="hidden-input" type="file" webkitdirectory multiple onChange=${folder}/></label>
      <${ProblemBox} error=${error} onClose=${() => setError(null)}/>
      ${sending && html`<p role="status">${T.uploading(sending)}</p>`}
      ${jobs.map(({ id }) => html`<p class="note">${T.importStarted} <a href=${address("jobs", { id })}>${id}</a></p>`)}
      ${work && html`<${Progress} work=${work}/>`}
      ${running && html`<button type="button" class="quiet" id="add-stop" onClick=${() => stop.current.abort()}>${T.cancel}</button>`}
      ${!running && work?.rest.length > 0 && html`<p class="note">${T.stopped} <button type="button" class="link" onClick=${() => sendFiles(work.rest, work)}>${T.resume}</button></p>`}
    </div></div>`;
}
