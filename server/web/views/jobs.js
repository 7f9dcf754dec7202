// Jobs with their progress, and one job with its failures.

import { html, useEffect } from "../vendor/htm-preact.js";
import { get, queryString, send } from "../api.js";
import { Empty, Field, MoreButton, ProblemBox, useAction } from "../components.js";
import { useData, useLoaded, usePaged } from "../data.js";
import { address, change } from "../route.js";
import { T, time } from "../strings.js";

const FOLLOW_MS = 1000;

const Bar = ({ job }) => job.finished_at === null && html`<progress aria-label=${T.progress} value=${job.total === null ? null : job.done + job.failed + job.skipped} max=${job.total || 1}></progress>`;
const State = ({ of }) => html`<span class=${`chip ${of}`}>${T.states[of]}</span>`;

function OneJob({ id }) {
  const { reload: reloadGalleries } = useData();
  const { value: job, error, reload } = useLoaded(() => get(`v1/jobs/${encodeURIComponent(id)}`), [id]);
  const failures = usePaged((cursor) => get(`v1/jobs/${encodeURIComponent(id)}/failures${queryString({ cursor })}`), "failures", [id, job?.finished_at]);
  const [run, busy, failed, clear] = useAction();
  const ended = job === null || job.finished_at !== null;
  useEffect(() => {
    if (ended) {
      if (job) reloadGalleries();
      return undefined;
    }
    const timer = setTimeout(reload, FOLLOW_MS);
    return () => clearTimeout(timer);
  }, [job]);
  const cancel = run(async () => { await send(`v1/jobs/${encodeURIComponent(id)}/cancel`); reload(); });
  return html`<section><p class="crumbs"><a href=${address("jobs")}>${T.allJobs}</a> / <b>${id}</b></p><${ProblemBox} error=${error ?? failed} onClose=${failed && clear}/>
    ${job && html`<div class="panel" id="job"><h2>${job.kind} ${job.gallery && html`· <a href=${address("galleries", { name: job.gallery })}>${job.gallery}</a>`} <${State} of=${job.state}/></h2>
      <${Bar} job=${job}/><p role="status">${T.jobLine(job)}</p>${job.error && html`<p class="note bad">${job.error}</p>`}
      ${job.ignored_by_reason.length > 0 && html`<ul>${job.ignored_by_reason.map((reason) => html`<li>${T.reasonLine(reason)}</li>`)}</ul>`}
      ${job.failed_by_reason.length > 0 && html`<h3>${T.failures}</h3><ul>${job.failed_by_reason.map((reason) => html`<li>${T.reasonLine(reason)}</li>`)}</ul>`}
      ${failures.rows.length > 0 && html`<details><summary>${T.failures}</summary><ul class="lines">${failures.rows.map(({ name, error: reason }) => html`<li><code>${name}</code> ${reason.detail}</li>`)}</ul>
        <${MoreButton} more=${failures.more} loading=${failures.loading} onMore=${failures.next}/></details>`}
      ${!ended && html`<button type="button" class="danger" disabled=${busy} onClick=${cancel}>${T.cancelJob}</button>`}</div>`}</section>`;
}

export function Jobs({ params }) {
  const state = params.get("state") ?? "";
  const list = usePaged((cursor) => get(`v1/jobs${queryString({ state, limit: 50, cursor })}`), "jobs", [state]);
  if (params.get("id")) return html`<${OneJob} key=${params.get("id")} id=${params.get("id")}/>`;
  return html`<section class="panel"><h2>${T.views.jobs}</h2><div class="filters"><${Field} label=${T.state}><select onChange=${(event) => change({ state: event.target.value }, { replace: true })}>
      <option value="">${T.allStates}</option>${Object.entries(T.states).map(([value, label]) => html`<option value=${value} selected=${value === state}>${label}</option>`)}</select><//></div>
    <${ProblemBox} error=${list.error} onRetry=${list.reload}/>
    <ul class="lines" id="jobs">${list.rows.map((job) => html`<li key=${job.id}><div><a href=${address("jobs", { id: job.id })}><b>${job.kind}</b></a> ${job.gallery} <small>${time(job.created_at)}</small></div>
      <span class="details-line">${T.jobLine(job)} <${State} of=${job.state}/></span></li>`)}</ul>
    ${!list.loading && !list.error && !list.rows.length && html`<${Empty} picture=${false}><p>${T.noJobs}</p><//>`}
    <${MoreButton} more=${list.more && !list.error} loading=${list.loading} onMore=${list.next}/></section>`;
}
