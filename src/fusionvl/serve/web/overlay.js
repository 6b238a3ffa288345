// Draws over a picture where the model looked: one map at a time. Knows an <img>, a <canvas> and what /v1/explain
// sends; spans are (start, end) in fractions of the picture's side, the same for rows and columns.

export class Overlay {
  constructor(image, canvas) {
    this.image = image;
    this.canvas = canvas;
    this.layers = [];
  }

  // Keeps what the server found; the maps are in `layers`, each with a title.
  take(found) {
    this.layers = found.layers.map((layer) => ({
      title: `Latent tokens, after decoder layer ${layer.decoder_layer}`,
      grid: layer.attention,
      spans: found.position_spans,
      meaning: "Brighter: where, inside its own window, each latent token gathered evidence for the question.",
    }));
    if (found.guidance_shift) {
      this.layers.push({
        title: "Patches, moved by the question",
        grid: found.guidance_shift,
        spans: found.patch_spans,
        meaning: "Brighter: patches whose features the question changed most, against no question.",
      });
    }
    this.missing = found.missing.join(" ");
  }

  // Draws one map and returns what it means in words.
  draw(index) {
    const layer = this.layers[index];
    if (!layer) {
      this.canvas.hidden = true;
      return this.missing;
    }
    const { width, height } = this.#cover();
    const context = this.canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    context.fillStyle = "rgb(10 12 20 / 0.62)"; // dim what was not looked at
    context.fillRect(0, 0, width, height);
    const values = layer.grid.flat();
    const [least, most] = [Math.min(...values), Math.max(...values)];
    layer.grid.forEach((row, i) => row.forEach((value, j) => {
      const [top, bottom] = layer.spans[i];
      const [left, right] = layer.spans[j];
      const strength = most > least ? (value - least) / (most - least) : 0;
      const box = [left * width, top * height, (right - left) * width, (bottom - top) * height];
      context.fillStyle = `rgb(255 209 102 / ${(0.75 * strength).toFixed(3)})`;
      context.fillRect(...box);
    }));
    return [layer.meaning, this.missing].filter(Boolean).join(" ");
  }

  hide() {
    this.canvas.hidden = true;
  }

  // Lays the canvas exactly over the picture as it is shown; returns its size in CSS pixels.
  #cover() {
    const { offsetLeft, offsetTop, clientWidth: boxWidth, clientHeight: boxHeight, naturalWidth, naturalHeight } = this.image;
    const scale = Math.min(boxWidth / naturalWidth, boxHeight / naturalHeight); // object-fit: contain
    const [width, height] = [naturalWidth * scale, naturalHeight * scale];
    this.canvas.hidden = false;
    this.canvas.style.left = `${offsetLeft + (boxWidth - width) / 2}px`;
    this.canvas.style.top = `${offsetTop + (boxHeight - height) / 2}px`;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    return { width, height };
  }
}
