"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const templates = {};
  for (const mode of ["light", "dark"]) {
    templates[mode] = JSON.parse(document.getElementById(`template-${mode}`).textContent);
  }
  const config = { responsive: true, displaylogo: false, scrollZoom: false, modeBarButtons: [["toImage"]] };
  const boxes = [...document.querySelectorAll(".plot")];

  function put(layout, path, value) {
    const keys = path.split(".");
    const last = keys.pop();
    let place = layout;
    for (const key of keys) place = place[key] ??= {};
    place[last] = value;
  }

  function draw(box) {
    const mode = dark.matches ? "dark" : "light";
    const source = document.querySelector(`script[data-plot="${box.id}"]`);
    const { data, layout } = JSON.parse(source.textContent);
    if (mode === "dark") {
      for (const [path, value] of Object.entries(layout.meta?.dark ?? {})) put(layout, path, value);
    }
    layout.template = templates[mode];
    layout.autosize = true;
    return Plotly.react(box, data, layout, config);
  }

  // One figure a turn: the text can be read and scrolled while they appear.
  async function drawAll() {
    for (const box of boxes) {
      try {
        await draw(box);
      } catch (error) {
        box.textContent = `This figure could not be drawn (${error}).`;
        box.classList.add("failed");
      }
      await new Promise((next) => setTimeout(next));
    }
    document.documentElement.dataset.drawn = String(document.querySelectorAll(".plot .main-svg").length > 0);
  }

  dark.addEventListener("change", drawAll);
  drawAll();
})();
