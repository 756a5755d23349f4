"use strict";
// Looking closer at a timeline, and reading what is there. Without this script the page shows all of it, at once.
(() => {
  const STATES = ["runs", "has", "has (somebody waits)", "wants", "waits for", "operation on", "no call"];
  const tip = document.getElementById("tip"), spoken = document.getElementById("spoken");
  const NS = "http://www.w3.org/2000/svg";

  function time(us) {
    const [by, unit] = us >= 1e6 ? [1e6, "s"] : us >= 1e3 ? [1e3, "ms"] : us >= 1 || us === 0 ? [1, "µs"] : [1e-3, "ns"];
    return `${+(us / by).toPrecision(4)} ${unit}`;
  }

  function element(name, attributes, parent) {
    const made = document.createElementNS(NS, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    return parent.appendChild(made);
  }

  class View {
    constructor(svg) {
      this.svg = svg;
      this.data = JSON.parse(document.getElementById(svg.id + "-data").textContent);
      this.window = svg.querySelector(".window");
      this.axis = svg.querySelector(".axis");
      this.lanes = [...svg.querySelectorAll(".lane")];
      this.height = svg.viewBox.baseVal.height;
      this.from = 0;
      this.to = this.data.length;
      this.highlight = element("g", { class: "arrows shown" }, this.window);
      this.chosen = element("rect", { class: "chosen", visibility: "hidden", rx: 2 }, svg);
      this.dragged = element("rect", { class: "dragged", visibility: "hidden", y: 0, height: this.height }, svg);
      this.index = this.piece = 0;
      if (this.lanes.length) this.lanes[0].setAttribute("tabindex", "0");
      svg.classList.add("at");
      this.switches();
      svg.addEventListener("pointermove", event => this.moved(event));
      svg.addEventListener("pointerleave", () => this.leave());
      svg.addEventListener("pointerdown", event => this.pressed(event));
      svg.addEventListener("pointerup", event => this.released(event));
      svg.addEventListener("wheel", event => this.turned(event), { passive: false });
      svg.addEventListener("keydown", event => this.key(event));
      this.lanes.forEach((lane, index) => lane.addEventListener("focus", () => {
        this.lanes[this.index].setAttribute("tabindex", "-1");
        lane.setAttribute("tabindex", "0");
        if (this.index !== index) [this.index, this.piece] = [index, 0];
      }));
    }

    switches() {
      const bar = document.querySelector(`.switches[data-for="${this.svg.id}"]`);
      const zoom = bar.querySelector(".zoom");
      for (const [name, length] of this.data.fits.length > 1 ? this.data.fits : []) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = name;
        button.title = `As long as it took on ${name}`;
        button.addEventListener("click", () => this.show(0, length));
        zoom.append(button);
      }
      const does = { in: () => this.zoom(0.5), out: () => this.zoom(2), all: () => this.show(0, this.data.length) };
      for (const button of bar.querySelectorAll("[data-do]")) button.addEventListener("click", does[button.dataset.do]);
      for (const box of bar.querySelectorAll("[data-layer]")) {
        const groups = this.svg.querySelectorAll(`.arrows.${box.dataset.layer}`);
        box.checked = [...groups].some(group => !group.classList.contains("off"));
        box.addEventListener("change", () => groups.forEach(group => group.classList.toggle("off", !box.checked)));
      }
    }

    // from time to place and back

    x(t) { return this.data.gutter + (t - this.from) / (this.to - this.from) * this.data.width; }
    point(event) {
      const box = this.svg.getBoundingClientRect(), scale = this.svg.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
      return { x, y, t: this.from + (x - this.data.gutter) / this.data.width * (this.to - this.from) };
    }

    show(from, to) {
      const span = Math.min(Math.max(to - from, 0.05), this.data.length);
      this.from = Math.min(Math.max(from, 0), this.data.length - span);
      this.to = this.from + span;
      this.window.setAttribute("viewBox", `${this.from} 0 ${span} ${this.height}`);
      this.ticks(span);
      for (const mark of this.svg.querySelectorAll(".mark[data-t]")) {
        const t = +mark.dataset.t, y = mark.transform.baseVal.getItem(0).matrix.f;
        mark.setAttribute("transform", `translate(${this.x(t)} ${y})`);
        mark.style.display = t < this.from || t > this.to ? "none" : "";
      }
      this.holders();
      this.chosen.setAttribute("visibility", "hidden");
    }

    ticks(span) {
      const rough = span / 10, power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map(by => by * power).find(size => size >= rough);
      const top = this.axis.querySelector("text")?.getAttribute("y") ?? 16;
      this.axis.replaceChildren();
      for (let t = Math.ceil(this.from / step) * step; t <= this.to; t += step) {
        element("path", { d: `M${this.x(t)} ${+top + 4}V${this.height - 4}` }, this.axis);
        element("text", { x: this.x(t), y: top, "text-anchor": "middle" }, this.axis).textContent = time(+t.toPrecision(10));
      }
    }

    holders() {
      this.data.lanes.forEach((lane, index) => {
        if (!lane.lock) return;
        this.lanes[index].querySelectorAll(".holder").forEach(old => old.remove());
        for (const [start, took, state, on] of lane.slices) {
          const left = Math.max(this.x(start), this.data.gutter), right = Math.min(this.x(start + took), this.data.gutter + this.data.width);
          const name = this.data.words[on || 0];
          if (right - left < 5.8 * name.length + 6) continue;
          const kind = state === 2 ? "holder crowded-holder" : "holder";
          element("text", { x: (left + right) / 2, y: lane.y + 13.5, "text-anchor": "middle", class: kind }, this.lanes[index]).textContent = name;
        }
      });
    }

    zoom(by, at = (this.from + this.to) / 2) {
      this.show(at - (at - this.from) * by, at + (this.to - at) * by);
    }

    // pointing

    at(point) {
      const index = this.data.lanes.findIndex(lane => point.y >= lane.y && point.y < lane.y + 18);
      if (index < 0 || point.x < this.data.gutter) return [index, -1];
      const slices = this.data.lanes[index].slices;
      let low = 0, high = slices.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (slices[middle][0] <= point.t) low = middle; else high = middle - 1;
      }
      const found = slices[low];
      return [index, found && point.t >= found[0] && point.t <= found[0] + found[1] ? low : -1];
    }

    told(index, piece) {
      const lane = this.data.lanes[index], [start, took, state, on, at, of, many] = lane.slices[piece], words = this.data.words;
      const what = lane.lock ? `${words[on]} has ${lane.name}${state === 2 ? "; somebody waits for it" : ""}` : `${lane.name} ${STATES[state]} ${words[on || 0]}`.trim();
      const lines = [what, `${time(took)}, from ${time(start)} on`];
      if (of && words[of]) lines.push(`${state === 3 ? "blocked by" : "woken by"} ${words[of]}`);
      if (at && words[at]) lines.push(words[at]);
      if (many > 1) lines.push(`(${many} short pieces, drawn as one)`);
      if (!lane.lock && (state === 1 || state === 2)) lines.push(...this.blocked(words[on], start, start + took));
      return lines.join("\n");
    }

    blocked(lock, from, to) {
      const names = this.data.lanes.filter(lane => !lane.lock && lane.slices.some(
        ([start, took, state, on]) => state === 3 && this.data.words[on] === lock && start < to && start + took > from)).map(lane => lane.name);
      return names.length ? [`waiting for it: ${[...new Set(names)].slice(0, 6).join(", ")}${names.length > 6 ? " …" : ""}`] : [];
    }

    mark(index, piece) {
      const lane = this.data.lanes[index], [start, took] = lane.slices[piece];
      const left = Math.max(this.x(start), this.data.gutter), right = Math.min(this.x(start + took), this.data.gutter + this.data.width);
      const box = { x: left - 1, width: Math.max(right - left, 0) + 2, y: lane.y + 1, height: 16 };
      for (const key in box) this.chosen.setAttribute(key, box[key]);
      this.chosen.setAttribute("visibility", "visible");
      const near = this.data.arrows.filter(([t0, y0, t1, y1]) =>
        (y0 === lane.y + 9 && t0 >= start - 0.2 && t0 <= start + took + 0.2) || (y1 === lane.y + 9 && t1 >= start - 0.2 && t1 <= start + took + 0.2)).slice(0, 60);
      this.highlight.replaceChildren();
      element("path", { d: near.map(([t0, y0, t1, y1]) => `M${t0} ${y0}L${t1} ${y1}`).join("") }, this.highlight);
      element("path", { d: near.map(([, , t1, y1]) => `M${t1} ${y1}h0`).join(""), class: "tip-of" }, this.highlight);
    }

    moved(event) {
      const point = this.point(event);
      if (this.start !== undefined) {
        const x0 = this.x(this.start), left = Math.min(x0, point.x);
        this.dragged.setAttribute("x", left);
        this.dragged.setAttribute("width", Math.abs(point.x - x0));
        this.dragged.setAttribute("visibility", "visible");
        return;
      }
      const shape = event.target.closest?.(".mark");
      const [index, piece] = this.at(point);
      const words = shape ? shape.querySelector("title").textContent : piece >= 0 ? this.told(index, piece) : index >= 0 ? this.lanes[index].getAttribute("aria-label") : "";
      tip.hidden = !words;
      tip.textContent = words;
      if (piece >= 0) this.mark(index, piece);
      this.place(event.clientX, event.clientY);
    }

    place(x, y) {
      tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${y + 22 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 12 : y + 18}px`;
    }

    leave() {
      tip.hidden = true;
      this.chosen.setAttribute("visibility", "hidden");
      this.highlight.replaceChildren();
    }

    pressed(event) {
      const point = this.point(event);
      if (event.button !== 0 || event.pointerType === "touch" || point.x < this.data.gutter) return;
      this.start = point.t;
      this.svg.setPointerCapture(event.pointerId);
    }

    released(event) {
      if (this.start === undefined) return;
      const { t } = this.point(event), start = this.start;
      this.start = undefined;
      this.dragged.setAttribute("visibility", "hidden");
      if (Math.abs(this.x(t) - this.x(start)) > 6) this.show(Math.min(start, t), Math.max(start, t));
    }

    turned(event) {
      if (!event.ctrlKey && !event.metaKey) return; // else the page scrolls, as everywhere
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.point(event).t);
    }

    key(event) {
      const span = this.to - this.from, lane = this.data.lanes[this.index];
      const does = {
        "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), "0": () => this.show(0, this.data.length),
        ArrowUp: () => this.lanes[Math.max(0, this.index - 1)].focus(),
        ArrowDown: () => this.lanes[Math.min(this.lanes.length - 1, this.index + 1)].focus(),
        ArrowLeft: () => this.step(Math.max(0, this.piece - 1)),
        ArrowRight: () => this.step(Math.min(lane.slices.length - 1, this.piece + 1)),
        Escape: () => this.leave(),
      };
      if (!does[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      does[event.key](span);
    }

    step(piece) {
      this.piece = piece;
      const [start, took] = this.data.lanes[this.index].slices[piece], span = this.to - this.from;
      if (start + took < this.from || start > this.to) this.show(start + took / 2 - span / 2, start + took / 2 + span / 2);
      this.mark(this.index, piece);
      spoken.textContent = tip.textContent = this.told(this.index, piece);
      tip.hidden = false;
      const box = this.chosen.getBoundingClientRect();
      this.place(box.left, box.bottom - 12);
    }
  }

  for (const svg of document.querySelectorAll("svg.timeline")) {
    try { new View(svg); } catch (error) { console.error(error); }
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(each => { each.open = true; }));
})();
