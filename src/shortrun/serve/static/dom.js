// Elements from plain data. Text is only ever set as text.

// An element with attributes and children. An attribute that is a function listens; one that is null or false is left out.
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Keeps as many children as there are items, so that focus stays where it is; `make` makes a new one, `update` fills each.
export function fill(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, at) => {
    if (!parent.children[at]) parent.append(make(at));
    update(parent.children[at], item, at);
  });
}

// Moves focus with the arrow keys inside a group of buttons of which one is in the tab order.
export function walk(event, parent, { next, before }) {
  const all = [...parent.children];
  const at = all.indexOf(document.activeElement);
  const to = { [next]: at + 1, [before]: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (at < 0 || to === undefined || !all[to]) return false;
  event.preventDefault();
  all[to].focus();
  return true;
}

// Waits until nothing has called for so many milliseconds.
export function settled(action, milliseconds) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}
