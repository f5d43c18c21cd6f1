// Show the token stream of one request while it is generated.

import { requestPath } from "./api.js";
import { $, write } from "./dom.js";
import { Stream } from "./stream.js";

const FLUSH_MS = 50;
const LONGEST_TEXT = 200_000;

let stream = null;

export const watching = () => stream !== null;

export function stopWatching() {
  stream?.close();
  stream = null;
  $("watch").hidden = true;
}

export function watch(id) {
  stopWatching();
  $("watch").hidden = false;
  const pane = $("watch-text");
  const text = document.createTextNode("");
  pane.replaceChildren(text);
  const showStatus = (status) => write($("watch-status"), status);
  let pending = "", ending = "";

  function flush() {
    const follows = pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 4;
    text.appendData(pending);
    pending = "";
    if (text.length > LONGEST_TEXT) text.replaceData(0, text.length - LONGEST_TEXT, "… ");
    if (follows) pane.scrollTop = pane.scrollHeight;
  }

  showStatus("Connecting …");
  $("watch-note").hidden = false;
  const opened = new Stream(requestPath(id, "/stream"), {
    onOpen: () => showStatus("Live."),
    onTrouble: (problem) => showStatus(`Connection lost (${problem.message}); trying again …`),
    onRefused: (problem) => showStatus(`The stream cannot be read: ${problem.message}`),
    onEvent: (data) => {
      if (data === "[DONE]") {
        opened.close();
        $("watch-note").hidden = true;
        showStatus(`Ended: ${ending || "finished"}.`);
        return;
      }
      const { error, choices } = JSON.parse(data);
      if (error) ending = `${error.error_type}, ${error.message}`;
      const choice = choices?.[0];
      if (choice?.finish_reason) ending = choice.finish_reason;
      const token = choice?.delta?.content ?? choice?.text ?? "";
      if (token && !pending) setTimeout(flush, FLUSH_MS);
      pending += token;
    },
  });
  stream = opened;
}
