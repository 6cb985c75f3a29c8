// What the server cannot do: local time beside UTC, keys, the theme, and marking what is new. The pages work
// without it. Nothing here makes markup from data: only text and attributes are set.
"use strict";
(() => {
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

  function tellLocalTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
      const when = new Date(time.dateTime);
      if (!Number.isNaN(when.getTime())) time.title = "Local: " + local.format(when);
    }
  }

  // The row that j and k move, Enter opens and a acknowledges; remembered by id, since lists are fetched anew.
  let selected = null;
  const shown = (row) => !row.checkVisibility || row.checkVisibility({ contentVisibilityAuto: true });
  const rows = () => [...document.querySelectorAll("[data-row]")].filter(shown);
  const current = () => (selected ? document.getElementById(selected) : null);

  function select(row) {
    const before = current();
    if (before) before.classList.remove("selected");
    selected = row ? row.id : null;
    if (!row) return;
    row.classList.add("selected");
    row.scrollIntoView({ block: "nearest" });
  }

  function move(step) {
    const all = rows();
    if (all.length === 0) return;
    const at = all.indexOf(current());
    select(all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1)]);
  }

  function open(row) {
    const summary = row.querySelector(":scope > summary");
    if (summary) summary.click();
    else row.querySelector("a[href]")?.click();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inField = event.target.closest("input:not([type=radio]):not([type=checkbox]), textarea, select");
    if (inField) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      const field = document.querySelector("[data-search]");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
    } else if (event.key === "j") {
      move(1);
    } else if (event.key === "k") {
      move(-1);
    } else if (event.key === "Enter") {
      const row = current();
      if (row && (event.target === document.body || event.target === row || event.target.id === "main")) { event.preventDefault(); open(row); }
    } else if (event.key === "a") {
      const within = current() || (rows().length === 0 || document.querySelector(".actions") ? document : null);
      const button = (document.querySelector(".actions [data-key=a]")) || within?.querySelector("[data-key=a]");
      if (button) { event.preventDefault(); button.click(); }
    } else if (/^[a-z0-9]$/.test(event.key) && !event.target.closest("dialog")) {
      // Every other key is a link or a menu of the page, or of the row that is selected, that names it.
      const css = "a[data-key='" + event.key + "'], summary[data-key='" + event.key + "']";
      const link = current()?.querySelector(css) ?? document.querySelector(css);
      if (link) { event.preventDefault(); link.click(); }
    }
  });

  // A list of names that a word filters; Enter takes the first that is left, the arrows go through them.
  const names = (list) => [...list.querySelectorAll("[data-name]:not([hidden]) a.name")];
  document.addEventListener("input", (event) => {
    if (!event.target.matches("[data-names-filter]")) return;
    const words = event.target.value.toLowerCase().split(/\s+/);
    for (const entry of event.target.closest("[data-namelist]").querySelectorAll("[data-name]")) {
      const name = entry.dataset.name.toLowerCase();
      entry.hidden = !words.every((word) => name.includes(word));
    }
  });
  document.addEventListener("keydown", (event) => {
    const list = event.target.closest("[data-namelist]");
    if (!list || !event.target.matches("[data-names-filter], a.name")) return;
    const all = names(list);
    const filter = list.querySelector("[data-names-filter]");
    const at = all.indexOf(event.target);
    if (event.key === "Enter" && at < 0 && all.length > 0) {
      event.preventDefault();
      all[0].click();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      (all[at + (event.key === "ArrowDown" ? 1 : -1)] ?? filter).focus();
    }
  });
  // A menu closes by Escape and by a click elsewhere, and its filter is at hand when it opens.
  document.addEventListener("keydown", (event) => {
    const menu = document.querySelector("details.menu[open]");
    if (event.key === "Escape" && menu) { menu.open = false; menu.querySelector("summary").focus(); }
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  const atHand = (menu) => (menu.querySelector("[data-names-filter]") ?? menu.querySelector("summary"))?.focus();
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.menu") && event.target.open) atHand(event.target);
  }, true);
  document.addEventListener("htmx:afterSwap", (event) => {
    const menu = event.target.closest?.("details.menu[open]");
    if (menu) atHand(menu);
  });

  // A link with fixed times goes to the clipboard where there is one.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-share]");
    if (!link || !navigator.clipboard) return;
    event.preventDefault();
    navigator.clipboard.writeText(link.href).then(() => say("The link is in the clipboard; its times are fixed"), () => { location.href = link.href; });
  });

  document.addEventListener("click", (event) => {
    const row = event.target.closest("[data-row]");
    if (row) select(row);
  });

  // Light, dark, or as the system says; a cookie, so that the server sends the right page at once.
  document.getElementById("theme")?.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    document.cookie = "theme=" + root.dataset.theme + "; path=/; max-age=31536000; samesite=strict";
  });

  // The search form: a preset searches at once, Custom shows its fields first.
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-range]")) {
      const custom = document.getElementById("custom");
      const wanted = event.target.value === "custom";
      custom.hidden = !wanted;
      for (const input of custom.querySelectorAll("input")) input.disabled = !wanted;
      if (wanted) custom.querySelector("input").focus();
      else event.target.form.requestSubmit();
    } else if (event.target.matches("[data-submit]")) {
      event.target.form.requestSubmit();
    }
  });

  function say(text) {
    const toast = document.getElementById("toast");
    if (!toast) return;
    toast.textContent = text;
    setTimeout(() => { if (toast.textContent === text) toast.textContent = ""; }, 5000);
  }

  // htmx: mark what came in since the list was last fetched, keep the selection, tell what went wrong.
  let known = null;
  const ids = () => new Set([...document.querySelectorAll("#feed .alert")].map((row) => row.id));

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.target.id === "feed") known = event.detail.requestConfig?.triggeringEvent?.type?.startsWith("sse") ? ids() : null;
  });
  // After settling, in which htmx sets the attributes of what kept its id to what the server sent.
  document.addEventListener("htmx:afterSettle", (event) => {
    tellLocalTimes(document);
    current()?.classList.add("selected");
    if (event.target.id !== "feed" || !known) return;
    for (const row of document.querySelectorAll("#feed .alert")) {
      if (!known.has(row.id)) row.classList.add("arrived");
    }
  });
  document.addEventListener("htmx:responseError", (event) => {
    const text = event.detail.xhr.responseText;
    say(event.detail.xhr.getResponseHeader("content-type")?.startsWith("text/plain") ? text : "That did not work (" + event.detail.xhr.status + ")");
  });
  document.addEventListener("htmx:sendError", () => say("The server cannot be reached"));

  // The stream of changes: say when it is lost, and fetch the list when it is back.
  let lost = false;
  document.addEventListener("htmx:sseError", () => {
    lost = true;
    const live = document.getElementById("live");
    if (live) { live.textContent = "reconnecting"; live.classList.add("off"); }
  });
  document.addEventListener("htmx:sseOpen", () => {
    const live = document.getElementById("live");
    if (live) { live.textContent = "live"; live.classList.remove("off"); live.dataset.open = ""; }
    if (lost) { lost = false; htmx.trigger(document.body, "refresh"); }
  });

  tellLocalTimes(document);
})();
