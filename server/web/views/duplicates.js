// Pairs of nearly equal items, to delete one of each.

import { html, useState } from "../vendor/htm-preact.js";
import { galleryPath, get, itemPath, queryString, remove } from "../api.js";
import { Empty, Field, MoreButton, ProblemBox, Thumbnail, useAction } from "../components.js";
import { usePaged } from "../data.js";
import { change } from "../route.js";
import { T } from "../strings.js";

export function Duplicates({ gallery, params, onChange }) {
  const [gone, setGone] = useState([]);
  const [run, busy, error, clear] = useAction();
  const least = params.get("min_score") ?? "0.98";
  const list = usePaged((cursor) => get(galleryPath(gallery.name, `/duplicates${queryString({ min_score: least, limit: 50, cursor })}`)), "pairs", [gallery.name, least]);
  const drop = (id) => run(async () => {
    if (!confirm(T.deleteItemSure)) return;
    await remove(itemPath(gallery.name, id));
    setGone((old) => [...old, id]);
    onChange();
  });
  const pairs = list.rows.filter(({ a, b }) => !gone.includes(a.id) && !gone.includes(b.id));
  const side = (item) => html`<figure><${Thumbnail} gallery=${gallery.name} id=${item.id} alt=${T.item(item.id)}/><figcaption title=${item.id}>${item.id}</figcaption>
    <button type="button" class="danger" disabled=${busy} aria-label=${T.deleteOne(item.id)} onClick=${drop(item.id)}>${T.remove}</button></figure>`;
  return html`<p class="hint">${T.duplicatesHint} ${list.last && T.walked(list.last.walked, list.last.items)}</p>
    <div class="filters"><${Field} label=${T.minScore}><input type="number" min="-1" max="1" step="any" value=${least} onChange=${(event) => change({ min_score: event.target.value }, { replace: true })}/><//></div>
    <${ProblemBox} error=${error ?? list.error} onClose=${error && clear}/>
    <ul class="duplicates">${pairs.map(({ a, b, score, identical }) => html`<li class="panel" key=${`${a.id} ${b.id}`}>${side(a)}<b>${score.toFixed(3)}${identical && html`<br/><small>${T.identical}</small>`}</b>${side(b)}</li>`)}</ul>
    ${!list.loading && !list.error && !list.more && !pairs.length && html`<${Empty} picture=${false}><p>${T.noDuplicates}</p><//>`}
    <${MoreButton} more=${list.more && !list.error} loading=${list.loading} onMore=${list.next}/>`;
}
