// The loaded models: cards, results and thresholds.

import { html } from "../vendor/htm-preact.js";
import { useData } from "../data.js";
import { T } from "../strings.js";
import { Properties } from "./pair.js";

const percent = ({ mean, std }) => `${(100 * mean).toFixed(1)}${std ? ` ± ${(100 * std).toFixed(1)}` : ""} %`;

const Table = ({ title, head, rows }) => html`<div class="scroll" tabindex="0" role="group" aria-label=${title}><table><caption>${title}</caption><thead><tr>${head.map((cell) => html`<th>${cell}</th>`)}</tr></thead>
  <tbody>${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody></table></div>`;

function Results({ card }) {
  if (!card.evaluations.length) return html`<p class="hint">${T.noResults}</p>`;
  const names = Object.keys(T.metric);
  return html`<${Table} title=${T.results} head=${[T.protocol, ...names.map((name) => T.metric[name])]}
    rows=${card.evaluations.map(({ data, protocol_id, metrics }) => [`${data}, ${protocol_id}`, ...names.map((name) => (metrics[name] ? percent(metrics[name]) : ""))])}/>`;
}

function Thresholds({ card }) {
  if (!card.calibrations.length) return html`<p class="hint">${T.noCalibrations}</p>`;
  const rates = Object.keys(card.calibrations[0].thresholds);
  return html`<${Table} title=${T.calibrations} head=${[T.pairOf, T.measuredOn, ...rates.map(T.atRate)]}
    rows=${card.calibrations.map((one) => [`${one.query} → ${one.gallery}`, `${one.data}, ${one.real ? T.realCrops : T.notReal}`, ...rates.map((rate) => one.thresholds[rate]?.toFixed(3) ?? T.noThreshold)])}/>`;
}

function Card({ card, usual }) {
  const sources = card.training.data.map(({ name, licence, identities }) => [name, licence, identities && `${identities} people`].filter(Boolean).join(", ")).join("; ");
  return html`<article class="panel"><h2>${card.name} ${usual && html`<span class="chip">${T.isDefault}</span>`}</h2>
    <p class="hint">${[card.method, card.backbone, card.version, card.wording].filter(Boolean).join(" · ")}</p>
    <${Properties} rows=${[[T.input, `${card.input.height} × ${card.input.width}`], [T.dimension, card.dimension], [T.parameters, card.parameters.toLocaleString()], [T.precisions, Object.keys(card.precisions).join(", ")],
      [T.training, sources], [T.intendedUse, card.intended_use], [T.limitsOf, card.limits], [T.fingerprint, html`<code>${card.fingerprint}</code>`]]}/>
    <${Results} card=${card}/><${Thresholds} card=${card}/></article>`;
}

export function Models() {
  const { models } = useData();
  return html`<div class="stack" id="models">${models?.models.map((card) => html`<${Card} key=${card.name} card=${card} usual=${card.name === models.default}/>`)}</div>`;
}
