"use strict";
// Follows a run that continues, on the page of `omr watch`. This script runs before page.js, whose charts it updates.

const parts = () => [...document.querySelector("main").children];
// The parts as the server sent them, before scripts changed them.
const served = new Map(parts().map(part => [part.id, part.outerHTML]));

// Replaces the parts of the page that differ in a new version. Charts and browsers of rows keep what the reader chose.
function update(html) {
  const next = new DOMParser().parseFromString(html, "text/html");
  data = JSON.parse(next.getElementById("data").textContent);
  let before = null;
  for (const part of [...next.querySelector("main").children]) {
    const old = document.getElementById(part.id), text = part.outerHTML, rows = part.querySelector(":scope > script");
    if (old && served.get(part.id) !== text && rows && old.showRows) {
      old.querySelector(".sub").textContent = part.querySelector(".sub").textContent;
      old.showRows(JSON.parse(rows.textContent));
    } else if (served.get(part.id) !== text) {
      old ? old.replaceWith(part) : before ? before.after(part) : document.querySelector("main").prepend(part);
      if (part.id === "curves") curves();
      document.dispatchEvent(new CustomEvent("part", { detail: part }));
    }
    served.set(part.id, text);
    before = document.getElementById(part.id);
  }
  boxes().forEach(chart);
}

// Asks the server for new versions of the page.
async function follow(status) {
  const say = text => { if (status.textContent !== text) status.textContent = text; };
  for (let tag = null; ; await new Promise(done => setTimeout(done, 2000))) {
    if (document.hidden) continue;
    try {
      const response = await fetch("/", tag ? { headers: { "If-None-Match": tag } } : {});
      if (response.status === 200) {
        tag = response.headers.get("ETag");
        update(await response.text());
      } else if (response.status !== 304) throw new Error(await response.text());
      status.classList.remove("lost");
      say(data.changed ? `Live. The last step was logged at ${new Date(1000 * data.changed).toLocaleTimeString()}.` : "Live. No step is finished yet.");
    } catch (error) {
      status.classList.add("lost");
      say(`Not live: ${error instanceof TypeError ? "omr watch does not answer" : error.message}.`);
    }
  }
}

follow(document.getElementById("live"));
