// Search: the query and its filters on one side, hits on the other.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { galleryPath, get } from "../api.js";
import { Choice, Empty, Field, ProblemBox, Thumbnail, modalityOptions } from "../components.js";
import { cropsOf } from "../crops.js";
import { useData, useLoaded } from "../data.js";
import { useSearch } from "../query.js";
import { address, navigate, withFields } from "../route.js";
import { T } from "../strings.js";
import { QueryCrops } from "./crops.js";
import { Filters } from "./filters.js";
import { Hits } from "./hits.js";

// What to search in unless stated: the other modality, where the gallery holds both.
function usualTarget(summary) {
  const held = Object.values(summary?.modalities ?? {}).filter((count) => count > 0);
  return held.length === 1 ? "all" : "opposite";
}

export function Search({ params }) {
  const { galleries, models } = useData();
  const [draft, setDraft] = useState(params);
  const [error, setError] = useState(null);
  const found = useSearch(params);
  const results = useRef(null);
  useEffect(() => {
    if (found?.answer && !params.get("open") && results.current.getBoundingClientRect().top > innerHeight / 2) results.current.scrollIntoView();
  }, [found?.answer]);
  useEffect(() => { setDraft(params); setError(null); }, [params.toString()]);
  const set = (fields) => setDraft((old) => withFields(new URLSearchParams(old), fields));
  const gallery = galleries?.find(({ name }) => name === draft.get("gallery")) ?? galleries?.[0];
  const summary = useLoaded(async () => (gallery ? get(galleryPath(gallery.name, "/summary")) : null), [gallery?.name]).value;
  const target = draft.get("in") ?? usualTarget(summary);
  const ids = cropsOf(draft.get("q")?.split(".") ?? []).map(({ id }) => id);
  const item = ids.length ? null : draft.get("item");
  const submit = (event) => {
    event.preventDefault();
    const fields = { gallery: gallery.name, in: target, q: ids.join("."), item, open: null, right: null, wrong: null, fr: null, fw: null, trail: item ? draft.getAll("trail") : null };
    const next = withFields(new URLSearchParams(draft), fields);
    if (next.toString() === params.toString()) found?.again();
    else navigate("search", next);
  };
  const changeCrops = (list) => { set({ q: list.join("."), item: null }); setError(null); };
  const card = models?.models.find(({ name }) => name === gallery?.model);
  return html`<div class="search">
    <form id="search" class="panel" aria-label=${T.views.search} onSubmit=${submit}>
      <${QueryCrops} ids=${ids} onChange=${changeCrops} model=${gallery?.model} card=${card} onError=${setError}/>
      ${item && gallery && html`<div class="stored"><${Thumbnail} gallery=${gallery.name} id=${item} alt=${T.storedQuery(item)}/><span>${T.storedQuery(item)}</span></div>`}
      <${Choice} label=${T.cropModality} name="modality" value=${draft.get("as") ?? "auto"} options=${modalityOptions} onChange=${(value) => set({ as: value })}/>
      ${galleries?.length
        ? html`<${Field} label=${T.gallery}><select id="gallery" required onChange=${(event) => set({ gallery: event.target.value, in: null, cam: null })}>
            ${galleries.map(({ name }) => html`<option value=${name} selected=${name === gallery.name}>${name}</option>`)}</select><//>`
        : galleries && html`<p class="note">${T.noGalleries} <a href=${address("galleries")}>${T.createOne}</a></p>`}
      <${Filters} draft=${draft} set=${set} summary=${summary} target=${target}/>
      <button class="primary wide" id="go" disabled=${!(ids.length || item) || !gallery}>${T.go}</button>
    </form>
    <section id="results" ref=${results} aria-live="polite" aria-busy=${found?.loading ? "true" : "false"} aria-label=${T.hitsArea}>
      <${ProblemBox} error=${error ?? found?.error} names=${cropsOf(found?.search.crops ?? []).map(({ name }) => name)} onRetry=${found?.error ? found.again : null}/>
      ${found === null && !error && html`<${Empty} title=${T.hintTitle}><p>${T.hint}</p><//>`}
      ${found?.lost && html`<${Empty} title=${T.lostQuery}><p>${T.lostQueryDetail}</p><//>`}
      ${found?.loading && !found.answer && !found.lost && html`<p class="hint">${T.searching}</p>`}
      ${found?.answer && html`<${Hits} found=${found} params=${params}/>`}
    </section>
  </div>`;
}
