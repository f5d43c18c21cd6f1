// Tell the progress of what the user has started, in a list of short notices.

import { $, element, mark, write } from "./dom.js";

const NOTICES = 5;

/** Add a notice about a request or replica. Return the function that changes its state and its text. */
export function notice(id) {
  const label = element("span");
  const close = element("button", { type: "button", textContent: "✕", ariaLabel: `Dismiss ${id}` });
  const item = element("li", {}, element("code", { textContent: id }), label, close);
  close.onclick = () => item.remove();
  $("notices").prepend(item);
  while ($("notices").children.length > NOTICES) $("notices").lastChild.remove();
  return (state, text) => {
    mark(item, "state", state);
    write(label, text);
  };
}
