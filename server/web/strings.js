// Every text of the page.

const number = (value) => value.toLocaleString();
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
export const time = (text) => (text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "");
export const bytes = (count) => (count < 1e6 ? `${Math.ceil(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`);

export const T = {
  // Frame of the page
  tagline: "person search across visible and infrared cameras",
  views: { search: "Search", compare: "Compare", galleries: "Galleries", jobs: "Jobs", models: "Models", status: "Status", keys: "Keys", audit: "Audit" },
  navigation: "Views",
  theme: "Theme",
  themes: { system: "System", light: "Light", dark: "Dark" },
  skip: "Skip to the content",
  connecting: "connecting…",
  notReachable: "no connection",
  ready: (models) => `ready · ${plural(models.length, "model")} on ${models[0].provider.replace("ExecutionProvider", "")}`,
  signOut: "Sign out",

  // Sign-in
  keyNeeded: "This server needs an API key",
  useKey: "Use key",
  keyKept: "Kept in this tab only.",
  keyRejected: "The server rejected this key.",

  // Errors
  answered: (status) => `The server answered ${status}.`,
  noConnection: "No connection",
  noConnectionDetail: "The server cannot be reached. Check that it runs, then try again.",
  unexpected: "Unexpected error",
  notFound: "There is no such view.",
  dismiss: "Dismiss",
  retry: "Try again",

  // General
  cancel: "Cancel", close: "Close", save: "Save", remove: "Delete", loading: "Loading…", copy: "Copy", any: "any",
  add: "Add", all: "All", visible: "Visible", infrared: "Infrared", auto: "Auto",
  modality: "Modality", camera: "Camera", cameras: "Cameras", identity: "Identity", identities: "Identities", capturedAt: "Captured", from: "From", to: "To",
  attributes: "Metadata", warnings: "Quality", name: "Name", model: "Model", gallery: "Gallery", description: "Description", id: "Id",
  noImage: "no image",
  showMore: "Show more",
  confirmTyped: (name) => `Type ${name} to confirm`,

  // Query
  dropQuery: "Drop pictures of one person",
  dropQueryHint: "or paste or choose them; several views improve the result",
  frameHint: "This looks like a whole frame. Draw a box around the person.",
  drawBox: (name) => `Draw boxes in ${name}`,
  removeCrop: (name) => `Remove ${name}`,
  queryCrops: "Query pictures",
  cropModality: "Modality of the pictures",
  mayDiffer: (a, b, score) => `Pictures ${a} and ${b} may show different people: their score is ${score.toFixed(2)}, which more than 1 in 100 pairs of different people reach.`,
  mutualScore: (score) => `Lowest score between these pictures: ${score.toFixed(2)}`,
  storedQuery: (id) => `Search with item ${id}`,
  boxes: "Draw a box around the person",
  boxesHint: "Drag on the picture. With the keyboard: add a box, then move it with the arrow keys and resize it with Shift and the arrow keys.",
  addBox: "Add a box", useBoxes: (count) => (count === 1 ? "Use this box" : `Use ${count} boxes`), removeBox: "Remove the last box", box: (n) => `Box ${n}`,
  cannotShow: "This browser cannot show the picture, so no box can be drawn in it. Convert it to JPEG or PNG.",

  // Filters
  target: "Search in", opposite: "Other modality",
  filters: "Filters and options",
  presets: { hour: "Last hour", day: "Last day", week: "Last week", any: "Any time" },
  presetsHint: (last) => `counted back from the newest item, ${time(last)}`,
  minScore: "Minimum score", maxFalse: "Most expected false hits", identitiesHint: "any, or several separated by commas",
  attributesHint: "such as shift=night, floor=2", fusion: "Several pictures", fusions: { mean: "average", max: "best match" },
  group: "Group hits by identity",
  go: "Search", searching: "Searching…",
  noGalleries: "There is no gallery yet.", createOne: "Create a gallery",

  // Hits
  hitsArea: "Results",
  hintTitle: "Search by image",
  hint: "Drop a picture of a person into the box. By default, hits are of the other modality where the gallery holds both.",
  lostQuery: "The pictures of this search are no longer here",
  lostQueryDetail: "Query pictures stay in the memory of this tab and a reload forgets them. Add them again and search.",
  hits: (count, more) => (count ? `${more ? "First " : ""}${plural(count, "hit")}` : "No hits"),
  searched: (modality, answer) => `${modality} query against ${plural(answer.searched, "item")} of ${answer.gallery}, in ${answer.timing_ms.total.toFixed(0)} ms`,
  approximate: (recall) => `Approximate search: it finds ${(100 * recall).toFixed(1)} % of the nearest items.`,
  nothingSearched: (gallery) => `No item of ${gallery} passes the filters. Choose “All” under “Search in”, or remove filters.`,
  nothingGood: "Items were searched, but none passes the minimum score or the limit on false hits. Loosen them to see more.",
  layouts: { grid: "Grid", list: "List", time: "Timeline" }, layout: "Layout",
  noIdentity: "No identity",
  groupLine: (hits, score) => `${plural(hits, "item")}, best ${score.toFixed(3)}`,
  searchWith: "Search with this", open: (rank, id) => `Open hit ${rank}: ${id}`, hit: (rank, id) => `Hit ${rank}: ${id}`,
  cameraOf: (camera) => `camera ${camera}`,
  trail: "Trail", trailStart: "pictures", query: "Query",
  score: "Score", previous: "Previous hit", next: "Next hit", zoom: "Zoom", pair: (rank) => `Hit ${rank} beside the query`,
  right: "Right", wrong: "Wrong", marked: (right, wrong) => `${number(right)} marked right, ${number(wrong)} marked wrong`,
  searchMarks: "Search again with the marks", clearMarks: "Clear marks", withMarks: (right, wrong) => `The query was re-weighted by ${plural(right, "hit")} marked right and ${number(wrong)} marked wrong; no error rates are known for such a query.`,
  goToItem: "Open in the gallery",
  noTimes: "None of these hits has a camera and a time, so there is no timeline.",
  timelineOf: (marked) => (marked ? "Path of the hits that you marked right" : "Hits by time. Mark hits right to see the path of one person only."),
  leg: (from, to, minutes) => `${from} → ${to} in ${minutes < 1 ? "less than a minute" : minutes < 120 ? plural(Math.round(minutes), "minute") : plural(Math.round(minutes / 60), "hour")}`,
  legs: "From camera to camera",

  // Comparison
  compareTitle: "Compare two pictures", compareHint: "The server scores one picture against the other, without a gallery.",
  first: "First picture", second: "Second picture", dropOne: "Drop or choose a picture", compare: "Compare",
  passes: { true: "passes", false: "does not pass", null: "too few pairs to say" },
  threshold: (rate) => `1 in ${number(Math.round(1 / rate))} strangers`,
  thresholds: "Thresholds of the model", thresholdRow: "At most this many strangers score as high",

  // Galleries
  newGallery: "New gallery", create: "Create", nameHint: "Letters, digits and . _ : -",
  retention: "Delete items after (days)", retentionHint: "never", vectorType: "Stored embeddings", vectorTypes: { float32: "float32: exact", float16: "float16: half the memory" },
  thumbnails: "Store thumbnails (needed for pictures of hits and for re-embedding)",
  noneYet: "No gallery yet. Create one, then add crops to it.",
  tabs: { items: "Items", add: "Add", duplicates: "Duplicates", settings: "Settings" }, tabList: "Parts of the gallery",
  created: "Created", summaryLine: (s) => [plural(s.items, "item"), s.modalities.visible && `${number(s.modalities.visible)} visible`, s.modalities.infrared && `${number(s.modalities.infrared)} infrared`,
    plural(Object.keys(s.cameras).length, "camera"), plural(s.identities, "identity", "identities")].filter(Boolean).join(" · "),
  noItems: "No item here. Add crops under “Add”, or remove filters.",
  allGalleries: "All galleries",

  // Items
  item: (id) => `Item ${id}`, checksum: "SHA-256 of the content", saved: "Saved.", deleteItem: "Delete this item", deleteItemSure: "Delete this item with its embedding and picture for good?",
  attributesEdit: "Metadata, one NAME=VALUE a line",
  erase: "Erase a person", eraseHint: "Deletes every item of one identity for good, and shows a receipt.", eraseCount: "Count the items", eraseFound: (n, who) => `${plural(n, "item")} of ${who} would be deleted for good.`,
  eraseNothing: (who) => `No item has the identity ${who}. Check the spelling; it must match exactly.`, eraseNow: (n) => `Delete ${plural(n, "item")}`,
  receipt: "Receipt", receiptLine: (r) => `${plural(r.items, "item")}, ${plural(r.vectors, "embedding")} and ${plural(r.thumbnails, "thumbnail")} deleted ${time(r.at)}.`,
  receiptComplete: "A check found nothing of them on the server.", receiptLeft: "A check still found data of them: see the receipt by its id.",
  duplicatesHint: "Pairs of items with nearly the same embedding.", noDuplicates: "No pair scores as high.", identical: "same file", walked: (done, all) => `${number(done)} of ${plural(all, "item")} compared`,
  deleteOne: (id) => `Delete ${id}`,

  // Adding
  dropAdd: "Drop crops, a folder or an archive", dropAddHint: "crops are added at once; .tar, .tar.gz, .zip, .parquet and .ndjson become a job",
  addTitle: "Add crops", chooseFolder: "Choose a folder", addModality: "Modality of the crops", addCamera: "Camera of all crops", optional: "optional", identityFromFolder: "The folder’s name is the identity",
  addedLine: (c, total) => [`${number(c.done)} of ${plural(total, "crop")}`, `${number(c.added)} added`, c.updated && `${number(c.updated)} replaced`,
    c.failed && `${number(c.failed)} failed`, c.warned && `${number(c.warned)} of poor quality`].filter(Boolean).join(" · "),
  cropsAdded: "Crops added", resume: "Continue", stopped: "Stopped. What was added stays.", addFailures: "Failures", uploading: (name) => `Sending ${name}…`, importStarted: "The import runs as a job.",
  nothingToAdd: "Nothing to add", nothingToAddDetail: "No picture, archive or table was found in what you dropped.",
  sameName: "A file with the same name replaces the earlier one.",

  // Gallery settings
  aliases: "Aliases", aliasHint: "Another name, valid wherever a gallery is named.", noAliases: "No alias.", newAlias: "New alias",
  archive: "Archive", archiveHint: "All items with embeddings and thumbnails in one file; restore it as another gallery.", download: "Download the archive", restore: "Restore an archive", restoreNow: "Restore",
  reembed: "Re-embed", reembedHint: "Computes all embeddings with another model, from the thumbnails, and then switches.", reembedNow: "Re-embed with it", oneModel: "Only one model is loaded.",
  calibrate: "Calibrate on this gallery", calibrateHint: "Measures how high different people of this gallery score, from items with identities.", calibrateNow: "Calibrate", noCalibration: "Not calibrated yet: rates come from the model’s card where one fits.",
  calibrationRow: (c) => `Version ${c.version}, ${c.query} to ${c.gallery}: ${plural(c.impostor_pairs, "pair")} of different people, by ${c.method}${c.used ? "" : " (not used)"}`,
  deleteGallery: "Delete the gallery", deleteGalleryHint: "Deletes it with all items and aliases for good.",

  // Jobs
  noJobs: "No job yet. Imports, restores, re-embeddings and calibrations appear here.", state: "State", progress: "Progress", failures: "Failures",
  jobLine: (j) => [j.total === null ? plural(j.done, "entry", "entries") : `${number(j.done + j.failed + j.skipped)} of ${number(j.total)}`, j.failed && `${number(j.failed)} failed`, j.skipped && `${number(j.skipped)} skipped`,
    j.ignored && `${number(j.ignored)} ignored`, j.rate && `${number(Math.round(j.rate))}/s`, j.eta_s && `${number(Math.ceil(j.eta_s))} s left`].filter(Boolean).join(" · "),
  cancelJob: "Cancel the job", reasonLine: (r) => `${number(r.count)} × ${r.reason} (${r.examples.join(", ")})`, allStates: "All states", allJobs: "All jobs",
  states: { queued: "queued", running: "running", succeeded: "succeeded", failed: "failed", cancelled: "cancelled" },

  // Models
  isDefault: "default", dimension: "Dimension", input: "Input", parameters: "Parameters", precisions: "Precisions", training: "Trained on", intendedUse: "Intended use", limitsOf: "Limits", fingerprint: "Fingerprint",
  results: "Results", protocol: "Data and protocol", metric: { rank1: "Rank-1", map: "mAP", minp: "mINP" }, calibrations: "Score thresholds", pairOf: "Query → gallery", measuredOn: "Measured on", realCrops: "real crops", notReal: "not real infrared crops",
  atRate: (rate) => `1 in ${number(Math.round(1 / Number(rate)))}`, noThreshold: "too few pairs", noResults: "The card holds no results.", noCalibrations: "The card holds no calibration: scores have no error rates.",

  // Status
  isReady: "The server is ready", notReady: "The server is not ready", version: "Version", queueDepth: "Waiting images", current: "up to date", behind: (n) => `${plural(n, "change")} behind`,
  indexKinds: { exact: "exact", ivf: "inverted lists" }, recall: "Recall", limits: "Limits of a request", reasons: "Reasons", receipts: "Erasure receipts", noReceipts: "Nothing was erased.",
  limitNames: { max_images: "Images", max_query_images: "Query images", max_image_bytes: "Bytes of an image", max_body_bytes: "Bytes of a body", max_import_bytes: "Bytes of an import", max_pixels: "Pixels of an image", max_in_flight: "Images in work", max_k: "Hits of a page", max_searches: "Searches", max_page: "Entries of a list", formats: "Formats" },
  retentionState: "Retention", retentionRuns: "Retention runs.", retentionStopped: "Retention is stopped", confirmClock: "The clock is right: continue",

  // Keys
  newKey: "New API key", scopes: "Scopes", scope: { search: "search", write: "write", admin: "admin" }, keyGalleries: "Galleries (none chosen: all)", expires: "Expires", never: "never", lastUsed: "Last used", rotate: "Rotate", perMinute: "Requests per minute",
  secretShown: "Copy this secret now. It is not shown again.", noKeys: "No API key yet.", deleteKey: (name) => `Delete the key ${name}? It is rejected from then on.`, deleteKeyTitle: (name) => `Delete ${name}`, rotateTitle: (name) => `Rotate ${name}`, rotated: "The old secret is accepted for one more day.",
  adminOnly: "This needs a key with the scope admin.",

  // Audit
  verify: "Verify the log", chainIntact: (v) => `The hash chain is intact: ${plural(v.entries, "entry", "entries")}, the last is number ${v.last} with digest ${v.digest}. Note both outside the server.`,
  chainBroken: "The hash chain is broken", number: "No.", at: "At", action: "Action", by: "Key", detail: "Detail", reference: "Case", noEntries: "No entry yet.",
};

export function rateInWords({ false_match_rate: rate, below, expected_false_hits: expected }, drawn = false, reweighted = false) {
  if (rate === null && reweighted) return "Re-weighted query: no error rate is known";
  if (rate === null) return drawn ? "A drawing: no error rate is known" : "Not calibrated for this kind of data";
  const people = 1 / rate;
  const rounded = people < 20 ? Math.round(people) : Number(people.toPrecision(2));
  const strangers = rate > 0.4
    ? `${Math.round(rate * 100)} % of strangers score as high`
    : `${below ? "Fewer than 1" : "1"} in ${number(rounded)} strangers scores as high`;
  if (expected === undefined || expected === null) return strangers;
  const others = expected < 10 ? Number(expected.toPrecision(2)) : Math.round(expected);
  return `${strangers}; ${below ? "fewer than " : ""}${number(others)} false ${others === 1 ? "hit" : "hits"} expected`;
}

export function calibrationInWords(used) {
  const people = used.identities === null ? "" : ` of ${plural(used.identities, "person", "people")}`;
  const origin = used.real ? "real crops" : "not real infrared crops";
  const by = used.source === "gallery" ? "this gallery's own items" : used.data;
  return `Error rates ${used.query} to ${used.gallery} were measured on ${by}: `
    + `${plural(used.impostor_pairs, "pair")} of different people${people}, ${origin}.`;
}

export const WARNINGS = {
  too_small: ["small", "Few pixels: it is enlarged to more than twice its size for the model."],
  too_dark: ["dark", "The image is too dark."],
  blurred: ["blurred", "The image has no fine detail."],
  not_person_shaped: ["odd shape", "The aspect ratio is unusual for a standing person."],
};
