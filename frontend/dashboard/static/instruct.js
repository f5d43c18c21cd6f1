// Tell a replica to drain, after a confirmation, or a worker to pause or to resume.

import { call, replicaPath } from "./api.js";
import { $, write } from "./dom.js";
import { notice } from "./notices.js";

const TOLD = {
  drain: "told to finish what it has and to leave",
  pause: "told to take nothing new",
  resume: "told to take requests again",
};

export function askToDrain(id) {
  const dialog = $("drain");
  write($("drain-id"), id);
  dialog.returnValue = "keep";
  dialog.onclose = () => {
    if (dialog.returnValue === "drain") instruct(id, "drain");
  };
  dialog.showModal();
}

/** Send an instruction. The table shows the replica's state once it has followed. */
export async function instruct(id, action) {
  const update = notice(id);
  update("requested", `${action} …`);
  try {
    await call(replicaPath(id, `/${action}`), { method: "POST" });
    update("confirmed", TOLD[action]);
  } catch (problem) {
    update("failed", `${action} failed: ${problem.message}`);
  }
}
