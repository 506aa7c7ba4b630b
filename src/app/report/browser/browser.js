"use strict";
function make(tag, props, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, props);
  element.append(...children);
  return element;
}

(() => {
  const PAGE = 8;
  const LONG = 500;
  const VERDICTS = [["right", "✓ correct"], ["wrong", "✗ wrong"], ["unjudged", "? unjudged"]];
  // The kinds of rows with several answers. Each row is of one kind, so that their counts add up.
  const KINDS = [["right", "✓ all correct"], ["mixed", "± some correct"], ["wrong", "✗ none correct"], ["unjudged", "? unjudged"]];

  function kind({ answers }) {
    const verdicts = new Set(answers.map(answer => answer.verdict));
    return verdicts.has("unjudged") ? "unjudged" : verdicts.size > 1 ? "mixed" : [...verdicts][0];
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
    const [, before, final, after] = /^([^]*?)<answer>([^]*)<\/answer>([^]*)$/.exec(answer.answer) ?? [, answer.answer, "", ""];
    const said = [before.trim(), final.trim() && make("b", { textContent: final.trim() }), after.trim()].filter(Boolean);
    out.append(make("p", { className: "said" }, ...(said.length ? said.flatMap((part, i) => i ? ["\n", part] : [part]) : ["(nothing)"])));
    if (answer.shades) out.append(shaded(answer.shades));
    const why = [answer.why, answer.tokens === null ? "" : `${answer.tokens} tokens`].filter(Boolean).join(" · ");
    if (why) out.append(make("p", { className: "why", textContent: why }));
    return out;
  }

  function images(row) {
    const box = make("div", { className: "images" });
    row.images.forEach((src, i) => box.append(make("img", {
      src, loading: "lazy", alt: `Image ${i + 1} of ${row.id}`,
      onload: event => event.target.classList.toggle("tiny", event.target.naturalWidth < 160),
    })));
    return box;
  }

  const marks = { right: "✓", wrong: "✗", unjudged: "?" };

  // A line about a row: its first image, its question and its verdicts. It opens the row.
  function line(row) {
    const verdicts = row.answers.map(({ verdict }) => make("i", { className: verdict ?? "", textContent: marks[verdict] ?? "" }));
    const out = make("summary", {}, make("span", { className: "ask-line" }, row.question || row.id,
      make("small", { textContent: [row.id, ...row.facts.map(fact => fact.join(": "))].join(" · ") })));
    if (row.images.length) out.prepend(make("img", { src: row.images[0], alt: "", loading: "lazy" }));
    if (verdicts.length) out.append(make("span", { className: "marks" }, ...verdicts));
    return out;
  }

  // Rows with answers are folded, because a page of them would be long. `open` contains the ids of the open ones.
  function folded(row, open) {
    if (row.answers.length === 0) return panel(row);
    const out = make("details", { className: "fold", open: open.has(row.id) }, line(row));
    const fill = () => { if (out.open && !out.querySelector(".row")) out.append(panel(row)); };
    out.ontoggle = () => {
      fill();
      if (out.open) open.add(row.id); else open.delete(row.id);
    };
    fill();
    return out;
  }

  function panel(row) {
    const text = make("div", {}, make("p", { className: "id", textContent: row.id }));
    if (row.question) text.append(make("p", { className: "question", textContent: row.question }));
    if (row.gold !== null) text.append(make("p", { className: "gold" }, "Correct answer: ", make("b", { textContent: row.gold })));
    const tags = [...row.facets, ...row.facts];
    if (tags.length) text.append(make("p", { className: "tags" }, ...tags.map(([name, value]) => make("span", { textContent: `${name}: ${value}` }))));
    if (row.answers.length) text.append(make("div", { className: "answers" }, ...row.answers.map(pane)));
    const out = make("article", { className: "row" });
    if (row.images.length) {
      out.classList.add("seen");
      out.append(images(row));
    }
    out.append(text);
    return out;
  }

  function words(row) {
    const answers = row.answers.flatMap(a => [a.name, a.thinking, a.answer, a.why]);
    return [row.id, row.question, row.gold ?? "", ...answers, ...row.facets.flat(), ...row.facts.flat()].join(" ").toLowerCase();
  }

  function browse(section) {
    let rows = JSON.parse(section.querySelector("script").textContent);
    let texts = rows.map(words);
    const chips = section.querySelector(".chips");
    const facets = section.querySelector(".facets");
    const search = section.querySelector("input");
    const status = section.querySelector("[role=status]");
    const list = section.querySelector(".rows");
    const more = section.querySelector(".more");
    const state = { verdict: "all", facets: new Map(), shown: PAGE, open: new Set(rows.slice(0, 1).map(row => row.id)) };
    const has = (row, verdict) => verdict === "all" || kind(row) === verdict;

    // Rows that pass all filters except the verdict. The chips show their numbers.
    function passing() {
      const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      return rows.filter((row, i) => wanted.every(word => texts[i].includes(word)) &&
        [...state.facets].every(([name, value]) => row.facets.some(f => f[0] === name && f[1] === value)));
    }

    function show() {
      const pass = passing();
      const names = rows.some(row => row.answers.length > 1) ? KINDS : VERDICTS;
      const present = names.filter(([name]) => rows.some(row => has(row, name)));
      const choices = present.length ? [["all", "All"], ...present] : [];
      chips.replaceChildren(...choices.map(([name, label]) => make("button", {
        type: "button", ariaPressed: String(state.verdict === name),
        textContent: `${label} (${pass.filter(row => has(row, name)).length})`,
        onclick: () => { state.verdict = name; state.shown = PAGE; show(); },
      })));
      const found = pass.filter(row => has(row, state.verdict));
      status.textContent = found.length === 0 ? "No rows." : `${Math.min(state.shown, found.length)} of ${found.length} shown.`;
      list.replaceChildren(...found.slice(0, state.shown).map(row => folded(row, state.open)));
      more.hidden = found.length <= state.shown;
    }

    function choices() {
      facets.replaceChildren();
      for (const name of new Set(rows.flatMap(row => row.facets.map(f => f[0])))) {
        const values = [...new Set(rows.flatMap(row => row.facets.filter(f => f[0] === name).map(f => f[1])))].sort();
        if (!values.includes(state.facets.get(name))) state.facets.delete(name);
        if (values.length < 2) continue;
        const option = value => make("option", { value, textContent: value, selected: state.facets.get(name) === value });
        const select = make("select", { onchange: () => {
          if (select.selectedIndex === 0) state.facets.delete(name); else state.facets.set(name, select.value);
          state.shown = PAGE;
          show();
        } }, make("option", { value: "", textContent: "all" }), ...values.map(option));
        facets.append(make("label", {}, name, select));
      }
    }

    // Shows new rows of a run that continues. They do not push an open row off the page.
    section.showRows = next => {
      const known = new Set(rows.map(row => row.id));
      if (state.open.size) state.shown += next.filter(row => !known.has(row.id)).length;
      rows = next;
      texts = rows.map(words);
      choices();
      show();
    };
    search.oninput = () => { state.shown = PAGE; show(); };
    more.onclick = () => { state.shown += PAGE; show(); };
    choices();
    show();
  }

  document.querySelectorAll("section.browser").forEach(browse);
  document.addEventListener("part", ({ detail }) => { if (detail.matches("section.browser")) browse(detail); });
})();
