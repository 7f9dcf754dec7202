// A hit in large beside the query.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { Badges, Dialog, Modality, Thumbnail } from "../components.js";
import { cropsOf } from "../crops.js";
import { address } from "../route.js";
import { T, rateInWords, time } from "../strings.js";
import { MarkButtons, searchOnward } from "./hits.js";

export const Properties = ({ rows }) => html`<dl class="properties">${rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;

export const attributeRows = (attributes) => Object.entries(attributes).map(([name, value]) => [name, String(value)]);

export function Pair({ found, hit, params, onPrevious, onNext, onClose }) {
  const [zoom, setZoom] = useState(1);
  const { answer, search } = found;
  const { item, score, rank } = hit;
  useEffect(() => {
    const keys = (event) => {
      if (event.target.matches("input, .strip")) return;
      if (event.key === "ArrowLeft" && onPrevious) onPrevious();
      if (event.key === "ArrowRight" && onNext) onNext();
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  });
  const query = search.item
    ? html`<${Thumbnail} gallery=${answer.gallery} id=${search.item} alt=${T.storedQuery(search.item)}/>`
    : cropsOf(search.crops).map(({ url, name }) => html`<span class="picture"><img src=${url} alt=${name}/></span>`);
  const rows = [[T.score, `${score.toFixed(3)}. ${rateInWords(hit, item.attributes.source === "drawn", params.has("fr") || params.has("fw"))}`], [T.identity, item.identity], [T.id, item.id], [T.modality, item.modality],
    [T.camera, item.camera], [T.capturedAt, time(item.captured_at)], ...attributeRows(item.attributes)];
  return html`<${Dialog} label=${T.pair(rank)} onClose=${onClose} wide>
    <div class="pictures" style=${{ "--zoom": zoom }} >
      <figure><div class="strip" tabindex="0" role="group" aria-label=${T.query}>${query}</div><figcaption>${T.query}</figcaption></figure>
      <figure><div class="strip" tabindex="0" role="group" aria-label=${T.hit(rank, item.id)}><${Thumbnail} gallery=${answer.gallery} id=${item.id} alt=${T.hit(rank, item.id)}/></div><figcaption>${T.hit(rank, item.identity ?? item.id)} <${Modality} of=${item.modality}/></figcaption></figure>
    </div>
    <div class="row"><button type="button" class="quiet" disabled=${!onPrevious} onClick=${onPrevious || null}>${T.previous}</button>
      <label class="zoom">${T.zoom}<input type="range" min="1" max="4" step="0.25" value=${zoom} onInput=${(event) => setZoom(Number(event.target.value))}/></label>
      <button type="button" class="quiet" disabled=${!onNext} onClick=${onNext || null}>${T.next}</button></div>
    <${Properties} rows=${rows}/><${Badges} warnings=${item.warnings}/>
    <div class="row"><${MarkButtons} id=${item.id} params=${params}/>
      <button type="button" class="primary" onClick=${() => searchOnward(item.id)}>${T.searchWith}</button>
      <a class="push" href=${address("galleries", { name: answer.gallery, item: item.id })}>${T.goToItem}</a></div>
  <//>`;
}
