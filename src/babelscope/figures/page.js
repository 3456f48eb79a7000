"use strict";
// A figure is whole without this script; it only puts what a mark says where the pointer or the finger is.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);

  // A mark's own title would come up a second time, later and in another place.
  function saidBy(mark) {
    const title = mark.querySelector(":scope > title");
    if (title && mark.closest("svg.drawing") !== mark) {
      mark.dataset.says = title.textContent;
      title.remove();
    }
    return mark.dataset.says;
  }

  function show(event) {
    const mark = event.target.closest("svg.drawing *");
    const words = mark && saidBy(mark);
    tip.classList.toggle("shown", Boolean(words));
    if (!words) return;
    tip.textContent = words;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, room))}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
  }

  document.addEventListener("pointerover", show);
  document.addEventListener("pointerdown", show);
  addEventListener("scroll", () => tip.classList.remove("shown"), { passive: true });
  document.documentElement.dataset.ready = "true";
})();
