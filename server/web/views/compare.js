// Verification: two pictures, one score.

import { html, useState } from "../vendor/htm-preact.js";
import { patiently, send } from "../api.js";
import { Choice, Drop, Field, ProblemBox, modalityOptions, useAction } from "../components.js";
import { addCrop, measure } from "../crops.js";
import { useData } from "../data.js";
import { T, calibrationInWords, rateInWords } from "../strings.js";
import { Boxes } from "./boxes.js";

function Side({ label, id, crop, onCrop }) {
  const [drawing, setDrawing] = useState(false);
  const choose = async ([file]) => {
    if (!file) return;
    const found = addCrop(file);
    await measure(found);
    onCrop(found);
  };
  return html`<div class="side"><h3>${label}</h3><${Drop} id=${id} title=${T.dropOne} hint="" multiple=${false} onFiles=${choose}/>
    ${crop && html`<span class="picture"><img src=${crop.url} alt=${crop.name}/></span>
      <button type="button" class="quiet" onClick=${() => setDrawing(true)}>${T.boxes}</button>`}
    ${drawing && html`<${Boxes} crop=${crop} onClose=${() => setDrawing(false)} onCut=${([one]) => { onCrop(one); setDrawing(false); }}/>`}</div>`;
}

const Outcome = ({ answer }) => html`<div class="outcome" role="status">
  <p class="big">${answer.score.toFixed(3)}</p><p>${answer.modality.join(" / ")} · ${answer.model}</p>
  <p>${rateInWords(answer)}</p>
  ${answer.calibration && html`<p class="hint">${calibrationInWords(answer.calibration)}</p>`}
  ${answer.same_at && html`<table><caption>${T.thresholds}</caption><thead><tr><th>${T.thresholdRow}</th><th>${T.score}</th></tr></thead>
    <tbody>${Object.entries(answer.same_at).map(([rate, passed]) => html`<tr><td>${T.threshold(Number(rate))}</td><td>${T.passes[String(passed)]}</td></tr>`)}</tbody></table>`}
</div>`;

export function Compare() {
  const { models } = useData();
  const [crops, setCrops] = useState([null, null]);
  const [modality, setModality] = useState("auto");
  const [model, setModel] = useState("");
  const [answer, setAnswer] = useState(null);
  const [run, busy, error, clear] = useAction();
  const put = (index) => (crop) => { setCrops((old) => old.map((one, n) => (n === index ? crop : one))); setAnswer(null); };
  const submit = run(async () => {
    const form = new FormData();
    for (const { file } of crops) form.append("images", file);
    form.append("modality", modality);
    if (model) form.append("model", model);
    setAnswer(await patiently(() => send("v1/compare", form)));
  });
  return html`<form class="panel compare" onSubmit=${submit}><h2>${T.compareTitle}</h2><p class="hint">${T.compareHint}</p>
    <${ProblemBox} error=${error} names=${crops.map((crop) => crop?.name)} onClose=${clear}/>
    <div class="sides"><${Side} label=${T.first} id="compare-first" crop=${crops[0]} onCrop=${put(0)}/><${Side} label=${T.second} id="compare-second" crop=${crops[1]} onCrop=${put(1)}/></div>
    <div class="pair"><${Choice} label=${T.cropModality} name="compare-modality" value=${modality} options=${modalityOptions} onChange=${setModality}/>
      <${Field} label=${T.model}><select onChange=${(event) => setModel(event.target.value)}>${models?.models.map(({ name }) => html`<option value=${name} selected=${name === (model || models.default)}>${name}</option>`)}</select><//></div>
    <button class="primary wide" id="compare" disabled=${busy || crops.includes(null)}>${T.compare}</button>
    ${answer && html`<${Outcome} answer=${answer}/>`}</form>`;
}
