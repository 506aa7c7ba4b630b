"use strict";
(() => {
  const PAGE = 10;
  const LONG = 500;
  const VERDICTS = [["right", "✓ correct"], ["wrong", "✗ wrong"], ["unjudged", "? unjudged"]];

  function make(tag, props, ...children) {
    const element = document.createElement(tag);
    Object.assign(element, props);
    element.append(...children);
    return element;
  }

  function thinking(text) {
    const body = make("p", { className: "think", textContent: text });
    if (text.length <= LONG) return body;
    const words = text.split(/\s+/).length;
    return make("details", {}, make("summary", { textContent: `Thinking, ${words} words` }), body);
  }

  // A token is darker if its probability was lower.
  function shaded(shades) {
    const body = make("p", { className: "shades" }, ...shades.map(([text, logProb]) => {
      const token = make("span", { textContent: text, title: `log-prob ${logProb}` });
      token.style.setProperty("--surprise", Math.min(1, -logProb / 4).toFixed(2));
      return token;
    }));
    return make("details", {}, make("summary", { textContent: "Tokens, darker if less probable" }), body);
  }

  function pane(answer) {
    const out = make("article", { className: `pane ${answer.verdict ?? ""}` });
    const head = make("header", {}, make("span", { textContent: answer.name }));
    const verdict = VERDICTS.find(([name]) => name === answer.verdict);
    if (verdict) head.append(make("span", { className: "pill", textContent: verdict[1] }));
    if (answer.name || verdict) out.append(head);
    if (answer.thinking) out.append(thinking(answer.thinking));
    out.append(make("p", { className: "said", textContent: answer.answer || "(nothing)" }));
    if (answer.shades) out.append(shaded(answer.shades));
    const why = [answer.why, answer.tokens === null ? "" : `${answer.tokens} tokens`].filter(Boolean).join(" · ");
    if (why) out.append(make("p", { className: "why", textContent: why }));
    return out;
  }

  function pictures(row) {
    const box = make("div", { className: "pictures" });
    row.pictures.forEach((src, i) => box.append(make("img", {
      src, loading: "lazy", alt: `Picture ${i + 1} of ${row.id}`,
      onload: event => event.target.classList.toggle("tiny", event.target.naturalWidth < 160),
    })));
    return box;
  }

  function panel(row) {
    const text = make("div", {}, make("p", { className: "id", textContent: row.id }));
    if (row.question) text.append(make("p", { className: "question", textContent: row.question }));
    if (row.gold !== null) text.append(make("p", { className: "gold" }, "Correct answer: ", make("b", { textContent: row.gold })));
    const tags = [...row.facets, ...row.facts];
    if (tags.length) text.append(make("p", { className: "tags" }, ...tags.map(([name, value]) => make("span", { textContent: `${name}: ${value}` }))));
    if (row.answers.length) text.append(make("div", { className: "answers" }, ...row.answers.map(pane)));
    const out = make("article", { className: "row" });
    if (row.pictures.length) {
      out.classList.add("seen");
      out.append(pictures(row));
    }
    out.append(text);
    return out;
  }

  function words(row) {
    const answers = row.answers.flatMap(a => [a.name, a.thinking, a.answer, a.why]);
    return [row.id, row.question, row.gold ?? "", ...answers, ...row.facets.flat(), ...row.facts.flat()].join(" ").toLowerCase();
  }

  function browse(section) {
    const rows = JSON.parse(section.querySelector("script").textContent);
    const texts = rows.map(words);
    const chips = section.querySelector(".chips");
    const facets = section.querySelector(".facets");
    const search = section.querySelector("input");
    const status = section.querySelector("[role=status]");
    const list = section.querySelector(".rows");
    const more = section.querySelector(".more");
    const state = { verdict: "all", facets: new Map(), shown: PAGE };
    const has = (row, verdict) => verdict === "all" || row.answers.some(a => a.verdict === verdict);

    // Rows that pass all filters except the verdict. The chips show their numbers.
    function passing() {
      const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      return rows.filter((row, i) => wanted.every(word => texts[i].includes(word)) &&
        [...state.facets].every(([name, value]) => row.facets.some(f => f[0] === name && f[1] === value)));
    }

    function show() {
      const pass = passing();
      const present = VERDICTS.filter(([name]) => rows.some(row => has(row, name)));
      const choices = present.length ? [["all", "All"], ...present] : [];
      chips.replaceChildren(...choices.map(([name, label]) => make("button", {
        type: "button", ariaPressed: String(state.verdict === name),
        textContent: `${label} (${pass.filter(row => has(row, name)).length})`,
        onclick: () => { state.verdict = name; state.shown = PAGE; show(); },
      })));
      const found = pass.filter(row => has(row, state.verdict));
      status.textContent = found.length === 0 ? "No rows." : `${Math.min(state.shown, found.length)} of ${found.length} shown.`;
      list.replaceChildren(...found.slice(0, state.shown).map(panel));
      more.hidden = found.length <= state.shown;
    }

    const names = [...new Set(rows.flatMap(row => row.facets.map(f => f[0])))];
    for (const name of names) {
      const values = [...new Set(rows.flatMap(row => row.facets.filter(f => f[0] === name).map(f => f[1])))].sort();
      if (values.length < 2) continue;
      const select = make("select", { onchange: () => {
        if (select.value === "") state.facets.delete(name); else state.facets.set(name, values[select.value]);
        state.shown = PAGE;
        show();
      } }, make("option", { value: "", textContent: "all" }), ...values.map((value, i) => make("option", { value: i, textContent: value })));
      facets.append(make("label", {}, name, select));
    }
    search.oninput = () => { state.shown = PAGE; show(); };
    more.onclick = () => { state.shown += PAGE; show(); };
    show();
  }

  document.querySelectorAll("section.browser").forEach(browse);
})();
