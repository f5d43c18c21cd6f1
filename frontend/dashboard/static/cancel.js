// Cancel a request: ask for confirmation, then show the progress and how long the cancellation took.

import { call, requestPath } from "./api.js";
import { $, write } from "./dom.js";
import { duration, shortDuration } from "./format.js";
import { notice } from "./notices.js";

const WAIT_MS = 5000;
const ROUNDS = 12; // of waiting, one minute in all
const REASON = "Cancelled from the dashboard";

/** The ids of the requests that this page is cancelling. */
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
  const update = notice(id);
  const since = performance.now();
  const waited = () => (performance.now() - since) / 1000;
  const ticking = setInterval(() => update("requested", `requested ${duration(waited())} ago, not confirmed yet`), 1000);
  update("requested", "requested …");
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const { status, body } = await call(requestPath(id, `/cancel?wait_ms=${WAIT_MS}`), {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ reason: REASON }),
        timeoutMs: 2 * WAIT_MS,
      });
      if (status === 202) continue;
      if (body.status === "cancelled") update("confirmed", `requested → confirmed stopped in ${shortDuration(body.finished_at - body.cancel_requested_at)}`);
      else update("confirmed", `the request had already ended: ${body.status}`);
      return;
    }
    update("failed", `not confirmed after ${duration(waited())}: the engine has not stopped; restart its worker`);
  } catch (problem) {
    update("failed", `the cancellation failed: ${problem.message}`);
  } finally {
    clearInterval(ticking);
    cancelling.delete(id);
  }
}
