// Sends crops to a gallery in batches: with progress, failures by file, stop and continue.

import { galleryPath, patiently, send } from "./api.js";

const BATCH = 16;

// The id depends only on the path, so that adding a file again replaces it.
export function idOf(file) {
  const name = file.path.replace(/\.[^./]*$/, "");
  return name.normalize("NFKD").replace(/[^A-Za-z0-9._:-]+/g, "-").slice(-128) || "crop";
}

export const uniqueFiles = (files) => [...new Map(files.map((file) => [idOf(file), file])).values()];

export const isPicture = ({ path, type }) => type.startsWith("image/") || /\.(jpe?g|jfif|png|webp|bmp|tiff?|gif|avif)$/i.test(path);

const ARCHIVES = [[/\.(tar\.gz|tgz)$/i, "application/gzip"], [/\.tar$/i, "application/x-tar"], [/\.zip$/i, "application/zip"],
  [/\.parquet$/i, "application/vnd.apache.parquet"], [/\.(ndjson|jsonl)$/i, "application/x-ndjson"]];

// The media type of an import; undefined for other files.
export const archiveType = ({ path }) => ARCHIVES.find(([pattern]) => pattern.test(path))?.[1];

function batchOf(files, limits) {
  let bytes = 0;
  const count = files.findIndex((file, n) => n > 0 && (n >= Math.min(BATCH, limits.max_images) || (bytes += file.size) + files[0].size > limits.max_body_bytes / 2));
  return count < 0 ? files : files.slice(0, count);
}

async function sendBatch(gallery, files, fieldsOf, signal) {
  const form = new FormData();
  for (const file of files) form.append("images", file, file.name);
  form.append("items", JSON.stringify(files.map((file) => ({ id: idOf(file), ...fieldsOf(file) }))));
  try {
    return await patiently(() => send(galleryPath(gallery, "/items"), form, "POST", { signal }));
  } catch (error) {
    if (![413, 415, 422].includes(error.status)) throw error;
    return { added: 0, updated: 0, items: files.map((_, index) => ({ index, status: "failed", error: reasonOf(error, index) })) };
  }
}

// The error of one file among those of a refused request.
const reasonOf = ({ body }, index) => ({ detail: body.errors?.find(({ field }) => field === `images[${index}]`)?.detail ?? body.detail });

// Sends `files`; calls `onProgress(counts, failures, warned)` after each batch. Returns the files that remain after a stop.
export async function upload(gallery, files, { limits, fieldsOf, signal, onProgress, counts, failures, warned }) {
  let rest = files;
  while (rest.length && !signal.aborted) {
    const batch = batchOf(rest, limits);
    const result = await sendBatch(gallery, batch, fieldsOf, signal).catch((error) => {
      if (signal.aborted) return null;
      throw Object.assign(error, { rest });
    });
    if (result === null) break;
    counts.done += batch.length;
    counts.added += result.added;
    counts.updated += result.updated;
    for (const { index, status, error, warnings } of result.items) {
      if (status === "failed") failures.push([batch[index].path, error.detail]);
      else if (warnings?.length) warned.push([batch[index].path, warnings]);
    }
    counts.failed = failures.length;
    counts.warned = warned.length;
    rest = rest.slice(batch.length);
    onProgress();
  }
  return rest;
}
