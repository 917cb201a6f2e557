"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const named = (id) => document.getElementById(id);

// An image that several pictures show is in the file once.
for (const image of all("img[data-same]")) image.src = named(image.dataset.same).src;

// Light and dark: as the system, until the button is pressed. Storage may be forbidden where the file is opened.
const theme = document.documentElement.dataset;
const isDark = () => (theme.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const remembered = (act) => { try { return act(localStorage); } catch { return null; } };
const before = remembered((storage) => storage.getItem("lightning_viz theme"));
if (before === "light" || before === "dark") theme.theme = before;
named("theme").addEventListener("click", () => {
  theme.theme = isDark() ? "light" : "dark";
  remembered((storage) => storage.setItem("lightning_viz theme", theme.theme));
});

// Steps: every picture that has one at this position.
const slider = named("step");
const frameOf = (cell) => cell.querySelector(".frame:not([hidden])");
function show(position) {
  for (const frame of all(".frame")) frame.hidden = !frame.dataset.at.split(" ").includes(String(position));
  const label = slider.list.options[position].label;
  slider.value = position;
  slider.setAttribute("aria-valuetext", label);
  named("now").value = label;
}
let playing = 0;
function pause() {
  clearInterval(playing);
  playing = 0;
  named("play").setAttribute("aria-pressed", "false");
  named("play").firstElementChild.textContent = "▶";
}
function play() {
  if (slider.value === slider.max) show(0);
  named("play").setAttribute("aria-pressed", "true");
  named("play").firstElementChild.textContent = "❚❚";
  playing = setInterval(() => {
    show(Number(slider.value) + 1);
    if (slider.value === slider.max) pause();
  }, 900);
}
if (slider) {
  slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
  named("play").addEventListener("click", () => (playing ? pause() : play()));
}

// Enlarged: a picture in the dialog; arrows go to the next picture and the next step.
const large = named("large");
let cell = null;
function enlarge(chosen) {
  cell = chosen;
  const frame = frameOf(cell);
  named("shown").replaceChildren(frame.querySelector("img").cloneNode(), frame.querySelector("figcaption").cloneNode(true));
  named("shown").firstElementChild.removeAttribute("id");
  large.scrollTop = 0;
  if (!large.open) large.showModal();
}
function go(by) {
  const cells = all(".cell").filter(frameOf);
  enlarge(cells[(cells.indexOf(cell) + by + cells.length) % cells.length]);
}
function step(by) {
  const position = Math.min(Math.max(Number(slider.value) + by, 0), Number(slider.max));
  pause();
  show(position);
  enlarge(cell);
}
for (const button of all(".enlarge")) button.addEventListener("click", () => enlarge(button.closest(".cell")));
named("previous").addEventListener("click", () => go(-1));
named("next").addEventListener("click", () => go(1));
large.addEventListener("keydown", (event) => {
  const act = {
    ArrowLeft: () => go(-1),
    ArrowRight: () => go(1),
    ...(slider && { ArrowUp: () => step(1), ArrowDown: () => step(-1) }),
  }[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});
large.addEventListener("click", (event) => { if (event.target === large || event.target.id === "shown") large.close(); });
large.addEventListener("close", () => frameOf(cell).querySelector(".enlarge").focus());

// On paper nothing can be unfolded.
addEventListener("beforeprint", () => { for (const one of all("details:not([open])")) { one.open = true; one.dataset.printed = ""; } });
addEventListener("afterprint", () => { for (const one of all("details[data-printed]")) { one.open = false; delete one.dataset.printed; } });
