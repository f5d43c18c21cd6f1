// JSON calls to this frontend. A failed one throws `{message, status, code}`.

import { logIn } from "./session.js";

const TIMEOUT_MS = 5000;

export const requestPath = (id, what = "") => `v1/requests/${encodeURIComponent(id)}${what}`;

/** What a response that is not ok says. */
export async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  return { message: error?.message ?? `it answers ${response.status}`, status: response.status, code: error?.code ?? null };
}

export async function call(path, { timeoutMs = TIMEOUT_MS, ...options } = {}) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(timeoutMs), ...options });
    } catch {
      throw { message: "no answer", status: 0, code: null };
    }
    if (response.status === 401) {
      await logIn();
      continue;
    }
    if (!response.ok) throw await refusal(response);
    return { status: response.status, body: await response.json() };
  }
}

export const post = (path, content, options = {}) =>
  call(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(content),
    ...options,
  });
