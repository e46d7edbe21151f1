// Puts the page together.
import { renderSections } from "./blocks.js";
import { browseView } from "./browse.js";
import { draw } from "./charts.js";
import { h } from "./dom.js";
import { readView } from "./read.js";
import { sampleView } from "./sample.js";
import * as source from "./source.js";

const find = (name) => document.getElementById(name);

// Shows what went wrong, or takes it away.
function trouble(error) {
  find("trouble").hidden = error === null;
  find("trouble").textContent = error === null ? "" : source.explained(error);
}

function offerRuns({ runs }) {
  for (const label of document.querySelectorAll("[data-two]")) {
    label.hidden = runs.length < 2;
    label.querySelector("select").replaceChildren(...runs.map((run, at) => h("option", { value: at }, `${"AB"[at]}: ${run.name}`)));
  }
}

async function showSections() {
  find("curves-said").textContent = "reading the logs …";
  try {
    renderSections(find("sections"), await source.sections(), draw);
    find("curves-said").textContent = "";
  } catch (error) {
    find("curves-said").textContent = error.message;
  }
}

// A page that computes by itself says whether it does so as Python did.
async function showCheck() {
  if (!source.check) return;
  find("check").hidden = false;
  find("check").textContent = "Checking this page against Python …";
  const { passed, text } = await source.check();
  find("check").className = passed ? "check" : "trouble";
  find("check").textContent = text;
}

// Charts take seconds of the server's time, so they are drawn for whoever comes to see them.
function whenSeen(element, action) {
  const observer = new IntersectionObserver(([entry]) => {
    if (!entry.isIntersecting) return;
    observer.disconnect();
    action();
  }, { rootMargin: "200px" });
  observer.observe(element);
}

async function begin() {
  const served = await source.runs();
  document.title = `${served.runs.map((run) => run.name).join(" and ")}: shortrun playground`;
  offerRuns(served);
  const { open } = readView(source, served, trouble);
  sampleView(source, served, open, trouble);
  await browseView(source, served, open, trouble).show();
  whenSeen(find("curves"), showSections);
  showCheck().catch(trouble);
  find("text").focus({ preventScroll: true });
}

begin().catch(trouble);
