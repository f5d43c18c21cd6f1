// Call the JSON API of this frontend. A failed call throws `{message, status, code}`.

import { logIn } from "./session.js";

const TIMEOUT_MS = 5000;

export const requestPath = (id, suffix = "") => `v1/requests/${encodeURIComponent(id)}${suffix}`;

export const replicaPath = (id, suffix = "") => `v1/replicas/${encodeURIComponent(id)}${suffix}`;

/** Return the error of a response that is not ok. */
export async function responseError(response) {
  const { error } = await response.json().catch(() => ({}));
  return { message: error?.message ?? `the response has the status ${response.status}`, status: response.status, code: error?.code ?? null };
}

export async function call(path, { timeoutMs = TIMEOUT_MS, ...options } = {}) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(timeoutMs), ...options });
    } catch {
      throw { message: "no response", status: 0, code: null };
    }
    if (response.status === 401) {
      await logIn();
      continue;
    }
    if (!response.ok) throw await responseError(response);
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
