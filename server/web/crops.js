// Query crops, in memory only: a reload forgets them. An id in the address names each.

const crops = new Map();

export function addCrop(file, name = file.name) {
  const id = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
  const crop = { id, file, name: name || "crop.png", url: URL.createObjectURL(file), found: null, error: null, size: null };
  crops.set(id, crop);
  return crop;
}

export const cropOf = (id) => crops.get(id);
export const cropsOf = (ids) => ids.map((id) => crops.get(id)).filter(Boolean);

// The size of a picture that this browser can show; null for others, such as TIFF.
export async function measure(crop) {
  try {
    const bitmap = await createImageBitmap(crop.file);
    crop.size = { width: bitmap.width, height: bitmap.height };
    bitmap.close();
  } catch {
    crop.size = null;
  }
  return crop.size;
}

export const looksLikeFrame = ({ size }) => size !== null && size.width > 0.85 * size.height;

// Cuts a box, in fractions of the picture, out of a crop's file; lossless.
export async function cut(crop, { left, top, width, height }) {
  const bitmap = await createImageBitmap(crop.file);
  const box = [left * bitmap.width, top * bitmap.height, width * bitmap.width, height * bitmap.height].map(Math.round);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.max(1, box[2]), Math.max(1, box[3])];
  canvas.getContext("2d").drawImage(bitmap, ...box, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return addCrop(new File([blob], `${crop.name.replace(/\.[^.]*$/, "")}-box.png`, { type: "image/png" }));
}
