// The query pictures: add by drop, paste or choice, see what they are, cut boxes out of frames.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { patiently, send } from "../api.js";
import { Drop } from "../components.js";
import { addCrop, cropsOf, looksLikeFrame, measure } from "../crops.js";
import { T } from "../strings.js";
import { Boxes } from "./boxes.js";

// Detects the modality of each crop and keeps its embedding, to compare the crops with each other.
async function inspect(crops, model) {
  await Promise.all(crops.map(measure));
  const form = new FormData();
  for (const { file } of crops) form.append("images", file);
  if (model) form.append("model", model);
  const { embeddings, errors } = await patiently(() => send("v1/embeddings", form));
  for (const row of embeddings) crops[row.index].found = { modality: row.modality, vector: row.vector, model };
  for (const { index, error } of errors) crops[index].error = error.detail;
}

// The two crops that are least alike: {score, a, b}, numbers from 1; null for fewer than two.
function leastAlike(crops) {
  let least = null;
  const known = crops.map((crop, n) => [n + 1, crop.found]).filter(([, found]) => found);
  for (const [a, first] of known) {
    for (const [b, second] of known) {
      if (b <= a || first.model !== second.model) continue;
      const score = first.vector.reduce((sum, value, n) => sum + value * second.vector[n], 0);
      if (!least || score < least.score) least = { score, a, b, pair: [first.modality, second.modality] };
    }
  }
  return least;
}

function Mutual({ crops, card }) {
  const least = leastAlike(crops);
  if (!least) return null;
  const [query, gallery] = least.pair;
  const fitting = card?.calibrations.filter((one) => one.query === query && one.gallery === gallery) ?? [];
  const limit = (fitting.find((one) => one.real) ?? fitting[0])?.thresholds["0.01"] ?? null;
  return limit !== null && least.score < limit
    ? html`<p class="note bad" role="status">${T.mayDiffer(least.a, least.b, least.score)}</p>`
    : html`<p class="hint">${T.mutualScore(least.score)}</p>`;
}

export function QueryCrops({ ids, onChange, model, card, onError }) {
  const [frame, setFrame] = useState(null);
  const [, redraw] = useState(0);
  const crops = cropsOf(ids);
  const look = async (found) => {
    await inspect(found, model).catch((error) => {
      for (const crop of found) crop.error = error.message;
      onError(error);
    });
    redraw((old) => old + 1);
  };
  const add = (files) => {
    const found = files.filter(({ size, type }) => size || type).map((file) => addCrop(file));
    if (!found.length) return;
    onChange([...ids, ...found.map(({ id }) => id)]);
    look(found);
  };
  useEffect(() => {
    const paste = (event) => add([...(event.clipboardData?.files ?? [])].filter(({ type }) => type.startsWith("image/")));
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  });
  const replace = (cuts) => {
    onChange(ids.flatMap((id) => (id === frame.id ? cuts.map((one) => one.id) : [id])));
    setFrame(null);
    look(cuts);
  };
  return html`<${Drop} id="query-files" title=${T.dropQuery} hint=${T.dropQueryHint} onFiles=${add}/>
    ${crops.length > 0 && html`<ul id="query-crops" class="crops" aria-label=${T.queryCrops}>${crops.map((crop, n) => html`<li key=${crop.id} class=${crop.error ? "broken" : ""}>
      <button type="button" class="crop" aria-label=${T.drawBox(crop.name)} title=${crop.error ?? T.boxes} onClick=${() => setFrame(crop)}><img src=${crop.url} alt=${crop.name}/></button>
      <button type="button" class="icon" aria-label=${T.removeCrop(crop.name)} onClick=${() => onChange(ids.filter((id) => id !== crop.id))}>×</button>
      <small>${n + 1}${crop.found && html` · <span class=${crop.found.modality}>${crop.found.modality}</span>`}</small>
    </li>`)}</ul>`}
    ${crops.filter(looksLikeFrame).slice(0, 1).map((crop) => html`<p class="note">${T.frameHint}
      <button type="button" class="link" onClick=${() => setFrame(crop)}>${T.drawBox(crop.name)}</button></p>`)}
    <${Mutual} crops=${crops} card=${card}/>
    <div>${frame && html`<${Boxes} crop=${frame} onClose=${() => setFrame(null)} onCut=${replace}/>`}</div>`;
}
