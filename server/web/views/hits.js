// The hits of a search: summary, marks, and a grid, list or timeline.

import { html } from "../vendor/htm-preact.js";
import { Badges, Modality, MoreButton, Thumbnail } from "../components.js";
import { cropsOf } from "../crops.js";
import { address, change, closeDialog, current, navigate, openDialog, withFields } from "../route.js";
import { T, calibrationInWords, rateInWords, time } from "../strings.js";
import { Pair } from "./pair.js";
import { Timeline } from "./timeline.js";

// Search with a hit; the trail remembers what led to it.
export function searchOnward(id) {
  const { params } = current();
  const here = params.get("item") ? `i:${params.get("item")}` : `q:${params.get("q")}`;
  navigate("search", withFields(params, { item: id, q: null, trail: [...params.getAll("trail"), here], open: null, right: null, wrong: null, fr: null, fw: null }));
  scrollTo({ top: 0 });
}

export function mark(id, kind) {
  const { params } = current();
  const chosen = params.getAll(kind).includes(id);
  const fields = Object.fromEntries(["right", "wrong"].map((name) => [name, params.getAll(name).filter((one) => one !== id)]));
  if (!chosen) fields[kind].push(id);
  change(fields, { replace: true });
}

export const MarkButtons = ({ id, params }) => html`<span class="marks" role="group" aria-label=${id}>
  ${["right", "wrong"].map((kind) => html`<button type="button" class=${`mark ${kind}`} aria-pressed=${params.getAll(kind).includes(id) ? "true" : "false"} onClick=${() => mark(id, kind)}>${T[kind]}</button>`)}
</span>`;

function Trail({ params }) {
  const trail = params.getAll("trail");
  const target = (n) => {
    const [kind, value] = trail[n].split(/:(.*)/s);
    return address("search", withFields(new URLSearchParams(params), { q: kind === "q" ? value : null, item: kind === "i" ? value : null, trail: trail.slice(0, n), open: null, right: null, wrong: null, fr: null, fw: null }));
  };
  return trail.length > 0 && html`<nav class="trail" aria-label=${T.trail}><span>${T.trail}</span><ol>${trail.map((step, n) => html`<li>
    <a href=${target(n)}>${step.startsWith("q:") ? T.trailStart : step.slice(2)}</a></li>`)}<li aria-current="page">${params.get("item")}</li></ol></nav>`;
}

function Summary({ found, params }) {
  const { answer, search, hits, cursor } = found;
  const warnings = [...new Set(answer.warnings.flat())];
  const modality = [...new Set(answer.modality)].join(" and ");
  const reason = answer.searched ? T.searched(modality, answer) : T.nothingSearched(answer.gallery);
  const pictures = search.item
    ? html`<li><${Thumbnail} gallery=${answer.gallery} id=${search.item} alt=${T.storedQuery(search.item)}/></li>`
    : cropsOf(search.crops).map(({ url, name }) => html`<li><img src=${url} alt=${name}/></li>`);
  const [right, wrong] = [params.getAll("fr"), params.getAll("fw")];
  return html`<div class="summary"><ul class="crops" aria-label=${T.query}>${pictures}</ul><div>
    <h2>${T.hits(hits.length, cursor !== null)}</h2>
    <p>${reason}${!answer.exact && ` ${T.approximate(answer.recall)}`}</p>
    ${answer.searched > 0 && !hits.length && html`<p>${T.nothingGood}</p>`}
    <${Badges} warnings=${warnings} label=${T.query}/>
    ${Object.values(answer.calibrations).map((used) => html`<p>${calibrationInWords(used)}</p>`)}
    ${(right.length > 0 || wrong.length > 0) && html`<p>${T.withMarks(right.length, wrong.length)}</p>`}
  </div></div>`;
}

function Tools({ params, grouped }) {
  const [right, wrong] = [params.getAll("right"), params.getAll("wrong")];
  const layout = params.get("layout") ?? "grid";
  const again = () => navigate("search", withFields(new URLSearchParams(params), { fr: right, fw: wrong, efh: null, open: null }));
  return html`<div class="tools">
    ${!grouped && html`<div class="choice small" role="group" aria-label=${T.layout}>${Object.entries(T.layouts).map(([name, label]) => html`<button type="button" aria-pressed=${name === layout ? "true" : "false"} onClick=${() => change({ layout: name === "grid" ? null : name }, { replace: true })}>${label}</button>`)}</div>`}
    ${(right.length > 0 || wrong.length > 0) && html`<p role="status">${T.marked(right.length, wrong.length)}</p>
      <button type="button" class="primary" id="search-marks" onClick=${again}>${T.searchMarks}</button>
      <button type="button" class="quiet" onClick=${() => change({ right: null, wrong: null }, { replace: true })}>${T.clearMarks}</button>`}
  </div>`;
}

function HitCard({ gallery, hit, params }) {
  const { rank, score, item } = hit;
  const where = [item.camera && T.cameraOf(item.camera), time(item.captured_at)].filter(Boolean).join(" · ");
  const state = ["right", "wrong"].find((kind) => params.getAll(kind).includes(item.id)) ?? "";
  return html`<li class=${`hit ${state}`}>
    <a class="thumbnail" href=${address("search", withFields(new URLSearchParams(params), { open: item.id }))} onClick=${openDialog}>
      <span class="unseen">${T.open(rank, item.id)}</span><${Thumbnail} gallery=${gallery} id=${item.id} alt=""/>
      <span class="rank" aria-hidden="true">${rank}</span><${Modality} of=${item.modality}/></a>
    <div class="details">
      <p class="who" title=${item.id}>${item.identity ?? item.id}</p>
      <p class="score"><span class="bar" aria-hidden="true"><i style=${{ width: `${100 * Math.max(0, score)}%` }}></i></span><b>${score.toFixed(3)}</b></p>
      <p class="rate">${rateInWords(hit, item.attributes.source === "drawn", params.has("fr") || params.has("fw"))}</p>
      ${where && html`<p class="where">${where}</p>`}
      <${Badges} warnings=${item.warnings}/>
      <div class="actions"><button type="button" class="link again" onClick=${() => searchOnward(item.id)}>${T.searchWith}</button>
        <${MarkButtons} id=${item.id} params=${params}/></div>
    </div></li>`;
}

const HitList = ({ gallery, hits, params }) => html`<ol class=${`hits ${params.get("layout") === "list" ? "as-list" : ""}`}>
  ${hits.map((hit) => html`<${HitCard} key=${hit.item.id} gallery=${gallery} hit=${hit} params=${params}/>`)}</ol>`;

// Merges adjacent groups without identity under one heading.
function mergeUnlabelled(groups) {
  const merged = [];
  for (const group of groups) {
    const last = merged.at(-1);
    if (group.identity === null && last?.identity === null) last.hits.push(...group.hits.map((hit) => ({ ...hit, rank: last.hits.length + 1 })));
    else merged.push({ ...group, hits: [...group.hits] });
  }
  return merged;
}

export function Hits({ found, params }) {
  const { answer, hits, cursor, loading } = found;
  const groups = answer.groups && mergeUnlabelled(answer.groups);
  const all = groups ? groups.flatMap((group) => group.hits) : hits;
  const opened = all.findIndex(({ item }) => item.id === params.get("open"));
  const show = (n) => change({ open: all[n]?.item.id ?? null }, { replace: true });
  return html`<div><${Trail} params=${params}/></div><${Summary} found=${found} params=${params}/>
    <div>${all.length > 0 && html`<${Tools} params=${params} grouped=${groups !== null}/>`}</div>
    <div>${groups
      ? groups.map(({ identity, score, hits: members }) => html`<h3 class="group">${identity ?? T.noIdentity}<small>${T.groupLine(members.length, score)}</small></h3>
          <${HitList} gallery=${answer.gallery} hits=${members} params=${params}/>`)
      : params.get("layout") === "time"
        ? html`<${Timeline} hits=${hits} params=${params}/>`
        : html`<${HitList} gallery=${answer.gallery} hits=${hits} params=${params}/>`}</div>
    <${MoreButton} more=${cursor !== null && !found.error} loading=${Boolean(loading)} automatic=${params.get("layout") !== "time"} onMore=${found.next}/>
    <div>${opened >= 0 && html`<${Pair} found=${found} hit=${all[opened]} params=${params} onPrevious=${opened > 0 && (() => show(opened - 1))}
      onNext=${opened + 1 < all.length && (() => show(opened + 1))} onClose=${() => closeDialog("open")}/>`}</div>`;
}
