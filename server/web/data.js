// What several views need of the server: limits, models and galleries; loaded once, and again on request.

import { createContext, useCallback, useContext, useEffect, useState } from "./vendor/htm-preact.js";
import { get, pages } from "./api.js";

export const Data = createContext(null);
export const useData = () => useContext(Data);

export function useServerData(key) {
  const [data, setData] = useState({ limits: null, models: null, galleries: null, aliases: [], error: null });
  const reload = useCallback(async () => {
    try {
      const [limits, models, galleries, aliases] = await Promise.all([
        get("v1/limits"), get("v1/models"), pages("v1/galleries", "galleries"), get("v1/aliases"),
      ]);
      setData({ limits, models, galleries, aliases: aliases.aliases, error: null });
    } catch (error) {
      setData((old) => ({ ...old, error }));
    }
  }, []);
  useEffect(() => { reload(); }, [key]);
  return { ...data, reload };
}

// The result of `load()`, again whenever one of `keys` changes; {value, error, loading, reload}.
export function useLoaded(load, keys) {
  const [state, setState] = useState({ value: null, error: null, loading: true });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let current = true;
    setState((old) => ({ ...old, loading: true }));
    load().then(
      (value) => current && setState({ value, error: null, loading: false }),
      (error) => current && setState({ value: null, error, loading: false }),
    );
    return () => { current = false; };
  }, [...keys, round]);
  return { ...state, reload: () => setRound((old) => old + 1) };
}

// A list of the API, page by page: {rows, more, loading, error, next, reload}. `fetchPage(cursor)` returns a page.
export function usePaged(fetchPage, name, keys) {
  const [state, setState] = useState({ rows: [], cursor: null, loading: true, error: null, last: null });
  const [round, setRound] = useState(0);
  const next = async (cursor, before, isCurrent = () => true) => {
    setState((old) => ({ ...old, loading: true, error: null }));
    try {
      const page = await fetchPage(cursor);
      if (isCurrent()) setState({ rows: [...before, ...page[name]], cursor: page.next_cursor, loading: false, error: null, last: page });
    } catch (error) {
      if (isCurrent()) setState((old) => ({ ...old, loading: false, error }));
    }
  };
  useEffect(() => {
    let current = true;
    next(null, [], () => current);
    return () => { current = false; };
  }, [...keys, round]);
  return { ...state, more: state.cursor !== null, next: () => !state.loading && next(state.cursor, state.rows), reload: () => setRound((old) => old + 1) };
}
