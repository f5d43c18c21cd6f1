// Logging in and out, where this frontend wants keys. The key itself is kept nowhere: the cookie is the server's.

import { $, write } from "./dom.js";

let asking = null;

/** Asks for the key, once for all who wait for it; resolves when it has been accepted. */
export function logIn() {
  asking ??= new Promise((resolve) => {
    const dialog = $("log-in");
    write($("log-in-problem"), "");
    $("log-in-form").onsubmit = async (event) => {
      event.preventDefault();
      const problem = await tryKey($("key").value);
      write($("log-in-problem"), problem);
      $("key").value = "";
      if (problem) {
        $("key").focus();
        return;
      }
      asking = null;
      dialog.close();
      resolve();
      showSession();
    };
    dialog.oncancel = (event) => event.preventDefault(); // there is nothing behind it to go back to
    if (!dialog.open) dialog.showModal();
    $("key").focus();
  });
  return asking;
}

async function tryKey(key) {
  try {
    const response = await fetch("login", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ key }),
    });
    if (response.ok) return "";
    return response.status < 500 ? "This key is not accepted." : `The frontend answers ${response.status}; try again.`;
  } catch {
    return "This frontend cannot be reached; try again.";
  }
}

/** Who is logged in, and a way out; nothing where no keys are wanted. */
export async function showSession() {
  let session = {};
  try {
    const response = await fetch("v1/session", { cache: "no-store" });
    if (response.ok) session = await response.json();
  } catch {
    // the live connection says that this frontend cannot be reached
  }
  write($("who"), session.authenticated ? `${session.name} (${session.role})` : "");
  $("log-out").hidden = !session.authenticated;
}

$("log-out").onclick = async () => {
  await fetch("logout", { method: "POST" }).catch(() => {});
  location.reload();
};
