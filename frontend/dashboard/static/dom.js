// Create elements and set texts. Values from outside (ids, models, reasons) become text, never markup.

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Set a text only if it differs, so that a selection in it is kept and a screen reader does not repeat it. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set a data attribute, which the style sheets refer to. */
export function mark(node, name, value) {
  if (node.dataset[name] !== value) node.dataset[name] = value;
}
