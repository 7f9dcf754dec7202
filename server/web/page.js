// The page's frame: header, sign-in and the view that the address names.

import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { currentKey, onUnauthorized, useKey } from "./api.js";
import { ProblemBox } from "./components.js";
import { Data, useServerData } from "./data.js";
import { address, useRoute } from "./route.js";
import { T } from "./strings.js";
import { chooseTheme, chosenTheme } from "./theme.js";
import { Audit } from "./views/audit.js";
import { Compare } from "./views/compare.js";
import { Galleries } from "./views/galleries.js";
import { Jobs } from "./views/jobs.js";
import { Keys } from "./views/keys.js";
import { Models } from "./views/models.js";
import { Search } from "./views/search.js";
import { Status, useReadiness } from "./views/status.js";

const VIEWS = { search: Search, compare: Compare, galleries: Galleries, jobs: Jobs, models: Models, status: Status, keys: Keys, audit: Audit };

function SignIn({ rejected, onKey }) {
  const submit = (event) => {
    event.preventDefault();
    useKey(event.target.elements.key.value.trim());
    onKey();
  };
  return html`<form id="access" class="panel" onSubmit=${submit}>
    <label for="key">${T.keyNeeded}</label>
    <input id="key" name="key" type="password" autocomplete="off" spellcheck="false" placeholder="vireid_…" required autofocus/>
    <button class="primary">${T.useKey}</button><small role="status">${rejected ? T.keyRejected : T.keyKept}</small>
  </form>`;
}

function Service() {
  const { className, text } = useReadiness();
  return html`<p id="service" role="status" class=${className}><span class="dot"></span><span class="text">${text}</span></p>`;
}

function ThemeChoice() {
  const [theme, setTheme] = useState(chosenTheme());
  const choose = (event) => { chooseTheme(event.target.value); setTheme(event.target.value); };
  return html`<select id="theme" aria-label=${T.theme} title=${T.theme} onChange=${choose}>${Object.entries(T.themes).map(([name, label]) => html`<option value=${name} selected=${name === theme}>${label}</option>`)}</select>`;
}

function Header({ view, onSignOut }) {
  return html`<header>
    <a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); document.querySelector("main").focus(); }}>${T.skip}</a>
    <h1><b>vireid</b> <span>${T.tagline}</span></h1>
    <nav aria-label=${T.navigation}>${Object.entries(T.views).map(([name, label]) => html`<a href=${address(name)} aria-current=${name === view ? "page" : null}>${label}</a>`)}</nav>
    <div class="push row"><${Service}/><${ThemeChoice}/>${currentKey() && html`<button type="button" class="quiet" onClick=${onSignOut}>${T.signOut}</button>`}</div>
  </header>`;
}

function Page() {
  const { view, params } = useRoute();
  const [access, setAccess] = useState({ needed: false, rejected: false, round: 0 });
  const data = useServerData(access.round);
  useEffect(() => onUnauthorized((rejected) => setAccess((old) => (old.needed ? old : { ...old, needed: true, rejected }))), []);
  useEffect(() => { document.title = `${T.views[view] ?? T.notFound} – vireid`; }, [view]);
  const signIn = () => setAccess((old) => ({ needed: false, rejected: false, round: old.round + 1 }));
  const signOut = () => { useKey(null); signIn(); };
  const View = VIEWS[view];
  return html`<${Data.Provider} value=${data}><${Header} view=${view} onSignOut=${signOut}/>
    <main id="content" tabindex="-1">
      ${access.needed ? html`<${SignIn} rejected=${access.rejected} onKey=${signIn}/>` : html`
        <${ProblemBox} error=${data.error} onRetry=${data.reload}/>
        ${View ? html`<${View} key=${`${view} ${access.round}`} params=${params}/>` : html`<p class="hint">${T.notFound}</p>`}`}
    </main><//>`;
}

// A file dropped beside an area must not replace the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

render(html`<${Page}/>`, document.getElementById("page"));
