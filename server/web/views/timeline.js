// Hits by time, one lane a camera, and the way from camera to camera.

import { html } from "../vendor/htm-preact.js";
import { Empty } from "../components.js";
import { address, openDialog, withFields } from "../route.js";
import { T, time } from "../strings.js";

const LANE = 44, LEFT = 130, WIDTH = 1000, RIGHT = 30, TOP = 12;

// Stays at one camera in a row count as one: [{camera, from, to}].
function stays(hits) {
  const found = [];
  for (const { item } of hits) {
    const last = found.at(-1);
    if (last?.camera === item.camera) last.to = item.captured_at;
    else found.push({ camera: item.camera, from: item.captured_at, to: item.captured_at });
  }
  return found;
}

export function Timeline({ hits, params }) {
  const right = params.getAll("right");
  const chosen = hits.filter(({ item }) => item.camera && item.captured_at && (!right.length || right.includes(item.id)))
    .sort((a, b) => new Date(a.item.captured_at) - new Date(b.item.captured_at));
  if (!chosen.length) return html`<${Empty} picture=${false}><p>${T.noTimes}</p><//>`;
  const cameras = [...new Set(chosen.map(({ item }) => item.camera))].sort();
  const times = chosen.map(({ item }) => new Date(item.captured_at).getTime());
  const span = Math.max(1, times.at(-1) - times[0]);
  const x = (iso) => LEFT + 20 + (WIDTH - LEFT - RIGHT - 20) * ((new Date(iso) - times[0]) / span);
  const y = (camera) => TOP + LANE * (cameras.indexOf(camera) + 0.5);
  const height = TOP + LANE * cameras.length;
  const way = stays(chosen);
  const legs = way.slice(1).map((stay, n) => [T.leg(way[n].camera, stay.camera, (new Date(stay.from) - new Date(way[n].to)) / 60_000), time(stay.from)]);
  return html`<p class="hint">${T.timelineOf(right.length > 0)}</p>
    <div class="timeline" tabindex="0" role="group" aria-label=${T.layouts.time}><svg viewBox=${`0 0 ${WIDTH} ${height + 26}`}>
      ${cameras.map((camera) => html`<g><line class="lane" x1=${LEFT} x2=${WIDTH} y1=${y(camera)} y2=${y(camera)}/><text x="0" y=${y(camera) + 5}>${camera.slice(0, 16)}</text></g>`)}
      <polyline points=${chosen.map(({ item }) => `${x(item.captured_at)},${y(item.camera)}`).join(" ")}/>
      ${chosen.map(({ rank, item }) => html`<a href=${address("search", withFields(new URLSearchParams(params), { open: item.id }))} aria-label=${`${T.open(rank, item.id)}, ${item.camera}, ${time(item.captured_at)}`} onClick=${openDialog}>
        <circle class=${item.modality} cx=${x(item.captured_at)} cy=${y(item.camera)} r="13"/><text class="number" x=${x(item.captured_at)} y=${y(item.camera) + 4.5}>${rank}</text></a>`)}
      <text x=${LEFT} y=${height + 20}>${time(chosen[0].item.captured_at)}</text><text class="end" x=${WIDTH} y=${height + 20}>${time(chosen.at(-1).item.captured_at)}</text>
    </svg></div>
    ${right.length > 0 && legs.length > 0 && html`<h3 class="group">${T.legs}</h3><ol class="legs">${legs.map(([leg, at]) => html`<li>${leg} <small>${at}</small></li>`)}</ol>`}`;
}
