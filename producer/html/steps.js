"use strict";
// Going through the steps of an order. Without this script the page shows all of them, at once.
(() => {
  const spoken = document.getElementById("spoken");

  class Steps {
    constructor(view) {
      this.rows = [...view.querySelectorAll("tbody tr")];
      this.count = view.querySelector(".count");
      this.at = this.rows.length;
      const go = { first: () => 1, back: () => this.at - 1, next: () => this.at + 1, last: () => this.rows.length };
      for (const button of view.querySelectorAll("[data-go]")) {
        button.addEventListener("click", () => this.show(go[button.dataset.go]()));
      }
      const keys = { ArrowLeft: go.back, ArrowUp: go.back, ArrowRight: go.next, ArrowDown: go.next, Home: go.first, End: go.last };
      view.addEventListener("keydown", event => {
        if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        this.show(keys[event.key]());
      });
      view.querySelector(".switches").hidden = false;
      this.show(this.at, true);
    }

    show(at, quietly) {
      this.at = Math.min(Math.max(at, 1), this.rows.length);
      this.rows.forEach((row, index) => {
        row.classList.toggle("ahead", index >= this.at);
        row.classList.toggle("now", index === this.at - 1);
        if (index === this.at - 1) row.setAttribute("aria-current", "step"); else row.removeAttribute("aria-current");
      });
      this.count.textContent = `${this.at} of ${this.rows.length}`;
      if (quietly) return;
      const row = this.rows[this.at - 1];
      row.scrollIntoView({ block: "nearest", inline: "nearest" });
      spoken.textContent = row.dataset.told;
    }
  }

  for (const view of document.querySelectorAll(".steps")) new Steps(view);
})();
