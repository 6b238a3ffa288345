// Pictures from files: read as they are, checked for being pictures. Knows files, no page and no server.

export const EXAMPLES = [
  { name: "blue circle", file: "examples/blue-circle.png" },
  { name: "teal rectangle", file: "examples/teal-rectangle.png" },
  { name: "red triangle", file: "examples/red-triangle.png" },
];

const READABLE = ["image/png", "image/jpeg", "image/webp", "image/gif"];

// Returns a data URI with the file's own bytes: the model gets what was chosen.
export async function readPicture(file) {
  if (!READABLE.includes(file.type)) {
    throw new Error(`${file.name || "This"} is no picture the page can read: use PNG, JPEG, WebP or GIF.`);
  }
  const source = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read: ${reader.error.message}`));
    reader.readAsDataURL(file);
  });
  const picture = Object.assign(new Image(), { src: source });
  try {
    await picture.decode();
  } catch (error) {
    throw new Error(`${file.name || "This"} is damaged or no picture.`, { cause: error });
  }
  return source;
}
