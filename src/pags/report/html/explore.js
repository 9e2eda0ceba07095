"use strict";
// The explorer: picks one model by objective, strength and target, and draws what the page holds of it.
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const form = document.getElementById("explorer-controls");
  const slider = document.getElementById("strength");
  const LAYERS = 5;

  const three = (value) => (value === null ? "none" : value.toFixed(3));
  const two = (value) => (value === null ? "none" : value.toFixed(2));
  const checked = (name) => form.querySelector(`input[name="${name}"]:checked`).value;

  // Sprites are decoded when they are first needed, and kept.
  const decoded = new Map();
  function sprite(uri) {
    if (!decoded.has(uri)) {
      const image = new Image();
      image.src = uri;
      decoded.set(uri, image.decode().then(() => image));
    }
    return decoded.get(uri);
  }

  function element(name, properties = {}, children = []) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // One picture with its caption; the canvas has the picture's own pixels, the style sheet enlarges it.
  function picture(caption) {
    const canvas = element("canvas", { width: data.width, height: data.height });
    canvas.setAttribute("role", "img");
    return { canvas, caption, figure: element("figure", {}, [canvas, element("figcaption", { textContent: caption })]) };
  }

  function card(label) {
    const shown = {
      image: picture("image"), score: picture("score"), gradient: picture("gradient"),
      scoreOn: picture("score, on"), scoreOff: picture("score, off"),
      on: picture("gradient, on"), off: picture("gradient, off"),
    };
    const gap = element("div");
    const parts = [element("div"), shown.scoreOn.figure, shown.on.figure, gap, shown.scoreOff.figure, shown.off.figure];
    const pictures = element("div", { className: "pictures" }, [
      shown.image.figure, shown.score.figure, shown.gradient.figure, ...parts,
    ]);
    const text = element("p");
    const bars = Array.from({ length: LAYERS }, () => ({ bar: element("i"), words: document.createTextNode("") }));
    const items = bars.map(({ bar, words }) => element("li", {}, [element("span", {}, [bar]), words]));
    const layers = element("ol", { className: "layers" }, items);
    layers.setAttribute("aria-label", "distance by layer of AlexNet");
    return { ...shown, parts, text, bars, layers, label, item: element("li", {}, [text, pictures, layers]) };
  }

  const cards = data.labels.map(card);
  document.getElementById("cards").append(...cards.map((each) => each.item));

  function draw(shown, image, row, column, name) {
    const { width, height } = data;
    const context = shown.canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(image, column * width, row * height, width, height, 0, 0, width, height);
    shown.canvas.setAttribute("aria-label", name);
  }

  const interval = (i) => [`${three(i.estimate)} `, element("small", { textContent: `[${three(i.low)}, ${three(i.high)}]` })];

  function tell(model, target) {
    document.getElementById("fact-regime").textContent = model.regime;
    document.getElementById("fact-accuracy").textContent = three(model.accuracy);
    document.getElementById("fact-ratio").replaceChildren(...interval(model["off/on"]));
    document.getElementById("fact-similarity").replaceChildren(...interval(model.similarity[target]));
  }

  function tellImage(each, found, place, column) {
    const similarity = found.similarity[place][column];
    each.text.replaceChildren(`class ${each.label}: ${data.metric} `, element("b", { textContent: three(similarity) }));
    found.layers[place][column].forEach((value, layer) => {
      each.bars[layer].words.data = `conv ${layer + 1}: ${three(value)}`;
      each.bars[layer].bar.style.width = `${Math.min(100, (100 * (value ?? 0)) / data.longest)}%`;
    });
  }

  async function drawAll(found, place, target) {
    const score = data.scores[target];
    const uris = [data.images, score.gradient, score.on, score.off, found.gradient, found.on, found.off];
    const [images, whole, wholeOn, wholeOff, gradient, on, off] = await Promise.all(uris.map(sprite));
    if (now.found !== found || now.place !== place) return; // another choice was made meanwhile
    cards.forEach((each, column) => {
      const name = `image ${column + 1} of class ${each.label}`;
      draw(each.image, images, 0, column, name);
      draw(each.score, whole, 0, column, `score at the ${name}`);
      draw(each.scoreOn, wholeOn, 0, column, `score at the ${name}, part on the manifold`);
      draw(each.scoreOff, wholeOff, 0, column, `score at the ${name}, part off the manifold`);
      draw(each.gradient, gradient, place, column, `gradient at the ${name}`);
      draw(each.on, on, place, column, `gradient at the ${name}, part on the manifold`);
      draw(each.off, off, place, column, `gradient at the ${name}, part off the manifold`);
    });
    document.getElementById("cards").dataset.drawn = `${now.objective.name} ${place} ${target}`;
  }

  const now = {};
  function show() {
    const objective = data.objectives[Number(checked("objective"))];
    if (now.objective !== objective) {
      slider.max = objective.models.length - 1;
      slider.value = objective.start;
      document.getElementById("ticks").replaceChildren(...objective.models.map((_, place) => element("option", { value: place })));
      document.getElementById("weakest").textContent = `${objective.symbol} = ${objective.models[0].strength}`;
      document.getElementById("strongest").textContent = `${objective.symbol} = ${objective.models.at(-1).strength}`;
    }
    const [place, target] = [Number(slider.value), checked("target")];
    const [model, found] = [objective.models[place], objective.targets[target]];
    Object.assign(now, { objective, found, place });
    const strength = `${objective.symbol} = ${model.strength}`;
    slider.setAttribute("aria-valuetext", `${strength}, ${model.regime}, accuracy ${two(model.accuracy)}`);
    document.getElementById("strength-now").textContent = strength;
    const parts = document.getElementById("show-parts").checked;
    const layers = document.getElementById("show-layers").checked;
    tell(model, target);
    cards.forEach((each, column) => {
      each.parts.forEach((part) => { part.hidden = !parts; });
      each.layers.hidden = !layers;
      tellImage(each, found, place, column);
    });
    const what = `${objective.title}, ${strength}, gradient of the ${data.targets[target]}`;
    document.getElementById("explorer-what").textContent = what;
    drawAll(found, place, target);
  }

  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("explorer").hidden = false;
  show();
})();
