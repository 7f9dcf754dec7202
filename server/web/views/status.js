// The state of the server: models, galleries, queue, limits, retention and receipts.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { get, send } from "../api.js";
import { MoreButton, ProblemBox, useAction } from "../components.js";
import { useData, useLoaded, usePaged } from "../data.js";
import { T } from "../strings.js";
import { Properties } from "./pair.js";

const EVERY_MS = 15_000;

// The readiness of the server, asked again and again: {className, text, readiness}.
export function useReadiness() {
  const [state, setState] = useState({ className: "", text: T.connecting, readiness: null });
  useEffect(() => {
    let timer = null, gone = false;
    const look = async () => {
      const next = await read();
      if (gone) return;
      setState(next);
      timer = setTimeout(look, EVERY_MS);
    };
    look();
    return () => { gone = true; clearTimeout(timer); };
  }, []);
  return state;
}

async function read() {
  try {
    const answer = await fetch("readyz");
    const body = await answer.json();
    const readiness = body.facts ?? body;
    return answer.ok ? { className: "ready", text: T.ready(readiness.models), readiness } : { className: "trouble", text: body.detail, readiness };
  } catch {
    return { className: "trouble", text: T.notReachable, readiness: null };
  }
}

const indexState = ({ store_sequence: store, index_sequence: index, index: kind, recall }) =>
  [T.indexKinds[kind], recall !== null && `${T.recall} ${recall.toFixed(3)}`, store === index ? T.current : T.behind(store - index)].filter(Boolean).join(" · ");

function Retention() {
  const { value, error, reload } = useLoaded(() => get("v1/retention"), []);
  const [run, busy, failed, clear] = useAction();
  if (error?.status === 403) return null;
  return html`<section class="panel"><h2>${T.retentionState}</h2><${ProblemBox} error=${error ?? failed} onClose=${failed && clear}/>
    ${value && (value.stopped ? html`<p class="note bad">${T.retentionStopped}: ${value.reason}</p><button type="button" class="quiet" disabled=${busy} onClick=${run(async () => { await send("v1/retention/confirm"); reload(); })}>${T.confirmClock}</button>` : html`<p>${T.retentionRuns}</p>`)}</section>`;
}

function Receipts() {
  const list = usePaged((cursor) => get(`v1/erasures?limit=20${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`), "receipts", []);
  return html`<section class="panel"><h2>${T.receipts}</h2><${ProblemBox} error=${list.error}/>
    <ul class="lines">${list.rows.map((receipt) => html`<li key=${receipt.id}><div><b>${receipt.gallery}</b> ${T.receiptLine(receipt)} <small><code>${receipt.id}</code></small></div></li>`)}
    ${!list.loading && !list.error && !list.rows.length && html`<li class="none">${T.noReceipts}</li>`}</ul><${MoreButton} more=${list.more && !list.error} loading=${list.loading} onMore=${list.next}/></section>`;
}

export function Status() {
  const { limits } = useData();
  const { className, readiness } = useReadiness();
  return html`<div class="tiles" id="status"><section class="panel"><h2>${className === "ready" ? T.isReady : T.notReady}</h2>
      ${readiness && html`<${Properties} rows=${[[T.version, readiness.version], [T.queueDepth, readiness.queue_depth], [T.reasons, readiness.reasons.join("; ")], ...readiness.models.map((model) => [model.name, `${model.provider.replace("ExecutionProvider", "")}, ${model.precision}`]),
        ...Object.entries(readiness.galleries ?? {}).map(([name, state]) => [name, indexState(state)])]}/>`}</section>
    <section class="panel"><h2>${T.limits}</h2>${limits && html`<${Properties} rows=${Object.entries(limits).filter(([name]) => T.limitNames[name]).map(([name, value]) => [T.limitNames[name], Array.isArray(value) ? value.join(", ") : value.toLocaleString()])}/>`}</section>
    <${Receipts}/><${Retention}/></div>`;
}
