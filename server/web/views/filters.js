// The filters and options of a search, over its draft of address fields.

import { html } from "../vendor/htm-preact.js";
import { Choice, Field, fromLocalInput, toLocalInput } from "../components.js";
import { T, plural } from "../strings.js";

const HOUR = 3_600_000;
const SPANS = { hour: HOUR, day: 24 * HOUR, week: 7 * 24 * HOUR };

function Cameras({ summary, chosen, onChange }) {
  const cameras = Object.entries(summary?.cameras ?? {});
  if (!cameras.length) return null;
  const toggle = (name) => onChange(chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name]);
  return html`<fieldset><legend>${T.cameras}</legend><div class="checks" tabindex="0" role="group" aria-label=${T.cameras}>${cameras.map(([name, count]) => html`<label class="check" key=${name}>
    <input type="checkbox" name="camera" value=${name} checked=${chosen.includes(name)} onChange=${() => toggle(name)}/> ${name} <small>${count.toLocaleString()}</small>
  </label>`)}</div></fieldset>`;
}

function Times({ summary, draft, set }) {
  const last = summary?.captured_last;
  const preset = (span) => () => set({ from: new Date(new Date(last) - SPANS[span]).toISOString(), to: null });
  return html`<fieldset><legend>${T.capturedAt}</legend>
    ${last && html`<div class="presets">${Object.keys(SPANS).map((span) => html`<button type="button" class="quiet" title=${T.presetsHint(last)} onClick=${preset(span)}>${T.presets[span]}</button>`)}
      <button type="button" class="quiet" onClick=${() => set({ from: null, to: null })}>${T.presets.any}</button></div>`}
    <div class="pair">
      <${Field} label=${T.from}><input id="captured-from" type="datetime-local" step="1" value=${toLocalInput(draft.get("from"))} onChange=${(event) => set({ from: fromLocalInput(event.target.value) })}/><//>
      <${Field} label=${T.to}><input id="captured-to" type="datetime-local" step="1" value=${toLocalInput(draft.get("to"))} onChange=${(event) => set({ to: fromLocalInput(event.target.value) })}/><//>
    </div></fieldset>`;
}

export function Filters({ draft, set, summary, target }) {
  const text = (name) => ({ value: draft.get(name) ?? "", onInput: (event) => set({ [name]: event.target.value }) });
  const used = ["cam", "from", "to", "who", "attr", "min", "efh", "group"].filter((name) => draft.get(name)).length;
  return html`<${Choice} label=${T.target} name="target" value=${target} onChange=${(value) => set({ in: value })}
      options=${[["opposite", T.opposite], ["visible", T.visible], ["infrared", T.infrared], ["all", T.all]]}/>
    <details id="more" open=${used > 0}>
      <summary>${T.filters}${used > 0 && html` <small>${plural(used, "filter")}</small>`}</summary>
      <${Cameras} summary=${summary} chosen=${draft.getAll("cam")} onChange=${(cam) => set({ cam })}/>
      <${Times} summary=${summary} draft=${draft} set=${set}/>
      <${Field} label=${T.identities}><input id="identities" autocomplete="off" placeholder=${T.identitiesHint} ...${text("who")}/><//>
      <${Field} label=${T.attributes}><input id="attributes" autocomplete="off" placeholder=${T.attributesHint} ...${text("attr")}/><//>
      <div class="pair">
        <${Field} label=${T.minScore}><input id="min-score" type="number" min="-1" max="1" step="any" placeholder=${T.any} ...${text("min")}/><//>
        <${Field} label=${T.maxFalse}><input id="max-false" type="number" min="0" step="any" placeholder=${T.any} ...${text("efh")}/><//>
      </div>
      <${Field} label=${T.fusion}><select id="fusion" value=${draft.get("fusion") ?? "mean"} onChange=${(event) => set({ fusion: event.target.value })}>
        ${Object.entries(T.fusions).map(([value, label]) => html`<option value=${value} selected=${value === (draft.get("fusion") ?? "mean")}>${label}</option>`)}</select><//>
      <label class="check"><input id="group" type="checkbox" checked=${draft.get("group") === "identity"} onChange=${(event) => set({ group: event.target.checked ? "identity" : null })}/> ${T.group}</label>
    </details>`;
}
