"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const templates = {};
  for (const mode of ["light", "dark"]) {
    templates[mode] = JSON.parse(document.getElementById(`template-${mode}`).textContent);
  }
  const darkColours = JSON.parse(document.getElementById("dark-colours").textContent);
  // Without a pointer that can hover, the button would cover the figure all the time.
  const displayModeBar = matchMedia("(hover: hover)").matches ? "hover" : false;
  const config = { responsive: true, displaylogo: false, displayModeBar, modeBarButtons: [["toImage"]] };
  const boxes = [...document.querySelectorAll(".plot")];

  function draw(box) {
    const mode = dark.matches ? "dark" : "light";
    const written = document.querySelector(`script[data-plot="${box.id}"]`).textContent;
    const coloured = written.replace(/#[0-9A-F]{6}/g, (colour) => (dark.matches && darkColours[colour]) || colour);
    const { data, layout } = JSON.parse(coloured);
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
