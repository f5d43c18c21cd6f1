// Cancelling: asks first, then says how it goes: requested → confirmed stopped, and in what time.

import { call, requestPath } from "./api.js";
import { $, element, mark, write } from "./dom.js";
import { duration, fine } from "./format.js";

const WAIT_MS = 5000;
const ROUNDS = 12; // of waiting; by then somebody should look at the worker
const NOTICES = 5;
const REASON = "Cancelled from the dashboard";

/** Ids whose cancel is under way from this page. */
export const cancelling = new Set();

export function askToCancel(id) {
  const dialog = $("cancel");
  write($("cancel-id"), id);
  dialog.returnValue = "keep";
  dialog.onclose = () => {
    if (dialog.returnValue === "cancel") cancel(id);
  };
  dialog.showModal();
}

async function cancel(id) {
  if (cancelling.has(id)) return;
  cancelling.add(id);
  const say = notice(id);
  const since = performance.now();
  const waited = () => (performance.now() - since) / 1000;
  const ticking = setInterval(() => say("requested", `requested ${duration(waited())} ago, not confirmed yet`), 1000);
  say("requested", "requested …");
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const { status, body } = await call(requestPath(id, `/cancel?wait_ms=${WAIT_MS}`), {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ reason: REASON }),
        timeoutMs: 2 * WAIT_MS,
      });
      if (status === 202) continue;
      if (body.status === "cancelled") say("confirmed", `requested → confirmed stopped in ${fine(body.finished_at - body.cancel_requested_at)}`);
      else say("confirmed", `had ended already: ${body.status}`);
      return;
    }
    say("failed", `not confirmed after ${duration(waited())}: the engine has not stopped; restart its worker`);
  } catch (problem) {
    say("failed", `the cancel failed: ${problem.message}`);
  } finally {
    clearInterval(ticking);
    cancelling.delete(id);
  }
}

function notice(id) {
  const words = element("span");
  const close = element("button", { type: "button", textContent: "✕", ariaLabel: `Dismiss ${id}` });
  const item = element("li", {}, element("code", { textContent: id }), words, close);
  close.onclick = () => item.remove();
  $("notices").prepend(item);
  while ($("notices").children.length > NOTICES) $("notices").lastChild.remove();
  return (state, text) => {
    mark(item, "state", state);
    write(words, text);
  };
}
