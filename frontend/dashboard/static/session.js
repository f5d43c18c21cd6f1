// Log in and out where this frontend requires API keys. The page does not store the key: the server sets a cookie.

import { $, write } from "./dom.js";

let asking = null;

/** Ask for an API key, with one dialog for all callers. The promise resolves when a key has been accepted. */
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
    dialog.oncancel = (event) => event.preventDefault(); // the page shows nothing without a session
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
    return response.status < 500 ? "This API key is not accepted." : `The frontend responded with the status ${response.status}; try again.`;
  } catch {
    return "This frontend cannot be reached; try again.";
  }
}

/** Show the name of the session and the button to log out, if there is a session. */
export async function showSession() {
  let session = {};
  try {
    const response = await fetch("v1/session", { cache: "no-store" });
    if (response.ok) session = await response.json();
  } catch {
    // the live connection shows that this frontend cannot be reached
  }
  write($("who"), session.authenticated ? `${session.name} (${session.role})` : "");
  $("log-out").hidden = !session.authenticated;
}

$("log-out").onclick = async () => {
  await fetch("logout", { method: "POST" }).catch(() => {});
  location.reload();
};
