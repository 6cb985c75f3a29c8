// The search page: completions and marks under the query, a range drawn over the histogram, following.
// The page works without it. Nothing here makes markup from data: only text and attributes are set.
"use strict";
(() => {
  const page = document.getElementById("searchbar");
  const field = page?.querySelector("[data-search]");

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    if (event.key === "?") {
      const keys = document.getElementById("keys");
      if (keys && !keys.open) { event.preventDefault(); keys.showModal(); }
    }
  });
  if (!field) return;

  const list = document.getElementById("completions");
  const marks = document.getElementById("marks");
  const hint = document.getElementById("hint");
  const MOST = 12;

  // Completions: names of fields from the envelope and from what was found, values from what was found.
  function names() {
    const own = field.dataset.names.split(" ");
    const found = [...document.querySelectorAll("[data-field]")].map((entry) => entry.dataset.field);
    return [...new Set([...found, ...own])];
  }

  function values(name) {
    const entry = [...document.querySelectorAll("[data-field]")].find((e) => e.dataset.field.toLowerCase() === name.toLowerCase());
    return entry ? [...entry.querySelectorAll("[data-value]")].map((e) => e.dataset.value) : [];
  }

  // The part of the query before the caret that is being written: `name` or `name:value`.
  function written() {
    const caret = field.selectionStart;
    const before = field.value.slice(0, caret);
    const word = before.match(/(?:^|[\s(!])-?((?:[\w.@-]+:)?"?[^\s()"]*)$/);
    if (!word || before.split('"').length % 2 === 0 && !/:"[^"]*$/.test(word[1])) return null;
    const text = word[1];
    const colon = text.indexOf(":");
    const start = caret - text.length;
    if (colon < 0) return { start, caret, name: text, value: null };
    return { start: start + colon + 1, caret, name: text.slice(0, colon), value: text.slice(colon + 1).replace(/^"/, "") };
  }

  function quoted(value) {
    return /^[\w.@-]+$/.test(value) ? value : '"' + value.replaceAll("\\", "\\\\").replaceAll('"', '\\"') + '"';
  }

  function offers() {
    const at = written();
    if (!at) return [];
    const starts = (text, prefix) => text.toLowerCase().startsWith(prefix.toLowerCase());
    if (at.value === null) {
      if (at.name === "") return [];
      const all = names();
      const first = all.filter((n) => starts(n, at.name));
      const inside = all.filter((n) => !starts(n, at.name) && n.toLowerCase().includes(at.name.toLowerCase()));
      return [...first, ...inside].slice(0, MOST).map((n) => ({ ...at, shown: n, insert: n + ":" }));
    }
    return values(at.name).filter((v) => starts(v, at.value) && v !== at.value).slice(0, MOST)
      .map((v) => ({ ...at, shown: v, insert: quoted(v) + " " }));
  }

  let offered = [];
  let chosen = -1;

  function close() {
    offered = [];
    chosen = -1;
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  }

  function show() {
    offered = offers();
    if (offered.length === 0) return close();
    chosen = -1;
    list.replaceChildren(...offered.map((offer, i) => {
      const item = document.createElement("li");
      item.id = "completion-" + i;
      item.setAttribute("role", "option");
      item.textContent = offer.shown;
      item.addEventListener("mousedown", (event) => { event.preventDefault(); take(offer); });
      return item;
    }));
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
  }

  function choose(step) {
    chosen = (chosen + step + offered.length + 1) % (offered.length + 1);
    if (chosen === offered.length) chosen = -1;
    [...list.children].forEach((item, i) => item.setAttribute("aria-selected", i === chosen ? "true" : "false"));
    if (chosen < 0) field.removeAttribute("aria-activedescendant");
    else { field.setAttribute("aria-activedescendant", "completion-" + chosen); list.children[chosen].scrollIntoView({ block: "nearest" }); }
  }

  function take(offer) {
    field.setRangeText(offer.insert, offer.start, offer.caret, "end");
    field.focus();
    close();
    if (offer.value === null) show();
    check();
  }

  field.addEventListener("input", () => { show(); check(); });
  field.addEventListener("blur", close);
  field.addEventListener("scroll", () => { marks.scrollLeft = field.scrollLeft; });
  field.addEventListener("keydown", (event) => {
    if (list.hidden) {
      if (event.key === "ArrowDown") { show(); if (offered.length > 0) { event.preventDefault(); choose(1); } }
      return;
    }
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      choose(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Tab" && !event.shiftKey) {
      event.preventDefault();
      take(offered[Math.max(chosen, 0)]);
    } else if (event.key === "Enter" && chosen >= 0) {
      event.preventDefault();
      take(offered[chosen]);
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopImmediatePropagation();
      close();
    }
  });

  // A mistake is marked while the query is written, some time after the last key.
  let waiting = 0;
  function check() {
    clearTimeout(waiting);
    mark(null);
    waiting = setTimeout(async () => {
      const query = field.value;
      const answer = await fetch("/api/v1/search/explain?q=" + encodeURIComponent(query), { headers: { accept: "application/json" } }).catch(() => null);
      if (!answer || answer.ok || field.value !== query) return;
      const told = await answer.json().catch(() => null);
      if (told?.error && field.value === query) mark(told.error);
    }, 400);
  }

  function mark(error) {
    marks.replaceChildren();
    hint.textContent = "";
    if (!error) return;
    hint.textContent = error.message + (error.hint ? ": " + error.hint.replaceAll("`", "") : "");
    if (error.offset === undefined) return;
    // Offsets are bytes of UTF-8.
    const bytes = new TextEncoder().encode(field.value);
    const before = new TextDecoder().decode(bytes.slice(0, error.offset));
    const wrong = document.createElement("span");
    wrong.textContent = [...field.value.slice(before.length)][0] ?? " ";
    marks.append(document.createTextNode(before), wrong);
    marks.scrollLeft = field.scrollLeft;
  }

  // A range drawn over the histogram.
  const histogram = document.querySelector(".histogram[data-brush]");
  const chart = histogram?.querySelector("svg");
  if (chart) {
    const left = Date.parse(histogram.dataset.from);
    const right = Date.parse(histogram.dataset.to);
    const width = chart.viewBox.baseVal.width;
    const at = (event) => {
      const box = chart.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    };
    let start = null;
    let drawn = null;
    chart.addEventListener("pointerdown", (event) => { if (event.button === 0) start = { share: at(event), x: event.clientX }; });
    addEventListener("pointermove", (event) => {
      if (!start || Math.abs(event.clientX - start.x) < 5 && !drawn) return;
      if (!drawn) {
        drawn = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        drawn.setAttribute("class", "brush");
        drawn.setAttribute("y", "0");
        drawn.setAttribute("height", "100%");
        chart.append(drawn);
      }
      const [a, b] = [start.share, at(event)].sort((x, y) => x - y);
      drawn.setAttribute("x", a * width);
      drawn.setAttribute("width", (b - a) * width);
    });
    addEventListener("pointerup", (event) => {
      if (start && drawn) {
        const [a, b] = [start.share, at(event)].sort((x, y) => x - y);
        const time = (share) => encodeURIComponent(new Date(left + share * (right - left)).toISOString());
        location.href = histogram.dataset.brush.replace("FROM", time(a)).replace("TO", time(b));
      }
      start = null;
    });
    // What was drawn is no click on the bar where it ends, and a bar is not dragged away.
    chart.addEventListener("click", (event) => { if (drawn) { event.preventDefault(); event.stopPropagation(); } }, true);
    chart.addEventListener("dragstart", (event) => event.preventDefault());
  }

  // A value with Shift or Alt is added to the query of this page.
  document.addEventListener("click", (event) => {
    const value = event.target.closest("a.pivot");
    if (!value || !(event.shiftKey || event.altKey)) return;
    event.preventDefault();
    const clause = (event.altKey ? "NOT " : "") + new URL(value.href).searchParams.get("q");
    const query = field.value.trim();
    field.value = query === "" ? clause : (/\bOR\b|\|\|/.test(query) ? "(" + query + ")" : query) + " AND " + clause;
    page.requestSubmit();
  });

  // Fields are filtered by name.
  document.addEventListener("input", (event) => {
    if (!event.target.matches("[data-filter]")) return;
    const wanted = event.target.value.toLowerCase();
    for (const entry of document.querySelectorAll("[data-field]")) entry.hidden = !entry.dataset.field.toLowerCase().includes(wanted);
    if (wanted) for (const group of document.querySelectorAll(".fields .group")) group.open = true;
  });

  // Following: nothing is asked while nobody looks, nothing is shown twice, and a page does not grow for ever.
  const SHOWN = 500;
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.id === "tail" && document.hidden) event.preventDefault();
  });
  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const rows = document.querySelector("[data-follow]");
    if (event.detail.target !== rows) return;
    for (const row of event.detail.fragment.querySelectorAll("[data-row]")) {
      if (document.getElementById(row.id)) row.remove();
      else row.classList.add("arrived");
    }
  });
  document.addEventListener("htmx:oobAfterSwap", (event) => {
    const rows = document.querySelector("[data-follow]");
    if (!rows || event.detail.target !== rows) return;
    [...rows.querySelectorAll("[data-row]")].slice(SHOWN).forEach((row) => row.remove());
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
    if (event.key === "f") {
      const filter = document.querySelector("[data-filter]");
      if (filter) { event.preventDefault(); filter.focus(); }
    }
  });
})();
