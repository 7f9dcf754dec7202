// The audit log, newest first, and its verification. For admins.

import { html, useState } from "../vendor/htm-preact.js";
import { get, queryString } from "../api.js";
import { MoreButton, ProblemBox, useAction } from "../components.js";
import { usePaged } from "../data.js";
import { T, time } from "../strings.js";

const SHORT = 120; // characters

const Detail = ({ text }) => (text.length <= SHORT ? html`<code>${text}</code>` : html`<details><summary><code>${text.slice(0, SHORT)}…</code></summary><code>${text}</code></details>`);

export function Audit() {
  const [verified, setVerified] = useState(null);
  const [run, busy, error, clear] = useAction();
  const list = usePaged((cursor) => get(`v1/audit${queryString({ limit: 100, cursor })}`), "entries", []);
  if (list.error?.status === 403) return html`<p class="note">${T.adminOnly}</p>`;
  const head = [T.number, T.at, T.action, T.gallery, T.by, T.reference, T.detail];
  return html`<section class="panel"><div class="row"><h2>${T.views.audit}</h2><button type="button" class="quiet push" id="verify" disabled=${busy} onClick=${run(async () => setVerified(await get("v1/audit/verify")))}>${T.verify}</button></div>
    <${ProblemBox} error=${error ?? list.error} onClose=${error && clear}/>
    ${verified && html`<p class=${`note ${verified.valid ? "" : "bad"}`} role="status">${verified.valid ? T.chainIntact(verified) : `${T.chainBroken}: ${verified.problem}`}</p>`}
    <div class="scroll" tabindex="0" role="group" aria-label=${T.views.audit}><table id="audit"><thead><tr>${head.map((cell) => html`<th>${cell}</th>`)}</tr></thead><tbody>${list.rows.map((entry) => html`<tr key=${entry.number}>
      <td>${entry.number}</td><td class="nowrap">${time(entry.at)}</td><td>${entry.action}</td><td>${entry.gallery}</td><td>${entry.key_id}</td><td>${[entry.case_reference, entry.reason].filter(Boolean).join(": ")}</td><td><${Detail} text=${JSON.stringify(entry.detail)}/></td></tr>`)}</tbody></table></div>
    ${!list.loading && !list.rows.length && html`<p class="hint">${T.noEntries}</p>`}<${MoreButton} more=${list.more && !list.error} loading=${list.loading} onMore=${list.next}/></section>`;
}
