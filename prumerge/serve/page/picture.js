// From a file to a picture that can be drawn and sent.

const SENT_AS_IT_IS = /^image\/(jpeg|png|webp|gif|bmp)$/;
const LARGEST = 1.5e6; // bytes; each move of the slider sends the picture
const SIDE = 1600; // pixels; models look at a few hundred a side

/** {name, url, image, note} of a file; raises Error with a sentence for what is no picture. */
export async function fromFile(file) {
  const own = URL.createObjectURL(file);
  try {
    const image = await loaded(own);
    if (file.size <= LARGEST && SENT_AS_IT_IS.test(file.type)) {
      return { name: file.name, url: await dataUrl(file), image, note: "" };
    }
    const { url, width, height } = smaller(image);
    return { name: file.name, url, image, note: `sent as ${width} x ${height} pixels` };
  } finally {
    URL.revokeObjectURL(own);
  }
}

/** The same of a sample. */
export const fromSample = async ({ name, url }) => ({ name, url, image: await loaded(url), note: "" });

async function loaded(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new Error("this file is no picture that the browser can open; take a JPEG, PNG, WebP or GIF");
  }
  return image;
}

function smaller(image) {
  const scale = Math.min(1, SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // where a picture is transparent, as on the server
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return { url: canvas.toDataURL("image/jpeg", 0.92), width: canvas.width, height: canvas.height };
}

function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("this file cannot be read; choose it again"));
    reader.readAsDataURL(file);
  });
}
