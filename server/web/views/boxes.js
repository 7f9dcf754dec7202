// Boxes drawn in a picture, by pointer or keyboard; each becomes a query crop.

import { html, useRef, useState } from "../vendor/htm-preact.js";
import { Dialog } from "../components.js";
import { cut } from "../crops.js";
import { T } from "../strings.js";

const SMALLEST = 0.01; // of the picture; a smaller drag is a click
const FIRST = { left: 0.35, top: 0.1, width: 0.3, height: 0.8 };
const STEP = 0.01;
const inside = (value, low = 0, high = 1) => Math.min(high, Math.max(low, value));

function moved(box, key, resize) {
  const [x, y] = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[key];
  return resize
    ? { ...box, width: inside(box.width + x, SMALLEST, 1 - box.left), height: inside(box.height + y, SMALLEST, 1 - box.top) }
    : { ...box, left: inside(box.left + x, 0, 1 - box.width), top: inside(box.top + y, 0, 1 - box.height) };
}

export function Boxes({ crop, onClose, onCut }) {
  const picture = useRef(null);
  const [boxes, setBoxes] = useState([]);
  const [start, setStart] = useState(null);
  const place = (event) => {
    const area = picture.current.getBoundingClientRect();
    return [inside((event.clientX - area.left) / area.width), inside((event.clientY - area.top) / area.height)];
  };
  const begin = (event) => {
    if (event.target.closest("button")) return;
    event.preventDefault();
    event.currentTarget.setPointerCapture(event.pointerId);
    setStart(place(event));
    setBoxes((old) => [...old, { left: 0, top: 0, width: 0, height: 0 }]);
  };
  const draw = (event) => {
    if (!start) return;
    const [[x, y], [u, v]] = [start, place(event)];
    const box = { left: Math.min(x, u), top: Math.min(y, v), width: Math.abs(x - u), height: Math.abs(y - v) };
    setBoxes((old) => [...old.slice(0, -1), box]);
  };
  const end = () => {
    setStart(null);
    setBoxes((old) => old.filter(({ width, height }) => width > SMALLEST && height > SMALLEST));
  };
  const adjust = (index) => (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    setBoxes((old) => old.map((box, n) => (n === index ? moved(box, event.key, event.shiftKey) : box)));
  };
  const use = async () => onCut(await Promise.all(boxes.map((box) => cut(crop, box))));
  const percent = (value) => `${100 * value}%`;
  return html`<${Dialog} label=${T.boxes} onClose=${onClose} wide>
    <p class="hint">${crop.size ? T.boxesHint : T.cannotShow}</p>
    ${crop.size && html`<div class="boxes" ref=${picture} onPointerDown=${begin} onPointerMove=${draw} onPointerUp=${end} onPointerCancel=${end}>
      <img src=${crop.url} alt=${crop.name} draggable=${false}/>
      ${boxes.map(({ left, top, width, height }, index) => html`<button type="button" class="box" aria-label=${T.box(index + 1)} onKeyDown=${adjust(index)}
        style=${{ left: percent(left), top: percent(top), width: percent(width), height: percent(height) }}><span>${index + 1}</span></button>`)}
    </div>
    <div class="row">
      <button type="button" class="quiet" onClick=${() => setBoxes((old) => [...old, FIRST])}>${T.addBox}</button>
      <button type="button" class="quiet" disabled=${!boxes.length} onClick=${() => setBoxes((old) => old.slice(0, -1))}>${T.removeBox}</button>
      <button type="button" class="primary push" disabled=${!boxes.length} onClick=${use}>${T.useBoxes(boxes.length)}</button>
    </div>`}
  <//>`;
}
